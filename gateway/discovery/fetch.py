"""Asks one provider for its models, within 10 seconds in all and 10 MiB an answer.

Above are discovery, and the probe of `twinspan validate`. Below are the forms, which read, and the sender, which follows no
redirect.
"""

import asyncio
import contextlib
from dataclasses import dataclass
from typing import Final

import orjson
from twinspan.v1.errors_pb2 import ErrorKind

from gateway.discovery.forms import ollama
from gateway.discovery.forms.listing import MOST_MODELS, FoundModel, Page, UnreadableError
from gateway.discovery.forms.table import FORMS, Form
from gateway.errors import GatewayError
from gateway.providers.provider import Provider
from gateway.providers.sender import OutboundRequest, Sender, Timeouts

SECONDS: Final = 10.0
"""How long a provider may take, all pages of its list together."""

_MOST_BYTES = 10 * 1024 * 1024
_MOST_PAGES = 50
_ASKED_AT_ONCE = 8
_TIMEOUTS = Timeouts(connect=5.0, first_token=SECONDS, idle=SECONDS, total=SECONDS)


@dataclass(frozen=True, slots=True)
class Listing:
    """What a provider says it has.

    Attributes:
        models: Its models, in its order.
        dropped: How many entries of its list were no model that can be asked for.
    """

    models: tuple[FoundModel, ...]
    dropped: int = 0


async def list_models(provider: Provider, sender: Sender) -> Listing:
    """Returns the models of a provider.

    Raises:
        GatewayError: AUTH_FAILED if it does not accept the credential, PROVIDER_TIMEOUT if it took too long, NETWORK_ERROR if it
            cannot be reached, PROVIDER_ERROR if it answered with anything but a list. The message never holds the credential.
    """
    asking = _Asking(provider, sender)
    try:
        async with asyncio.timeout(SECONDS):
            await asking.everything()
    except TimeoutError as error:
        if asking.listed:
            return asking.listing()  # what was not shown in time stays as it is listed
        raise asking.failed(ErrorKind.ERROR_KIND_PROVIDER_TIMEOUT, f"did not answer in {SECONDS:g} s.") from error
    except GatewayError as error:
        error.message = provider.cleansed(error.message)
        raise
    return asking.listing()


class _Asking:
    """One round of questions to one provider.

    Attributes:
        listed: Whether its whole list is in.
    """

    def __init__(self, provider: Provider, sender: Sender) -> None:
        self._provider = provider
        self._sender = sender
        self._form: Form = FORMS[provider.listing_style]
        self._url = self._form.address(provider)
        self._models: dict[str, FoundModel] = {}
        self._dropped = 0
        self.listed = False

    def listing(self) -> Listing:
        return Listing(tuple(self._models.values()), self._dropped)

    def failed(self, kind: ErrorKind.ValueType, what: str) -> GatewayError:
        return GatewayError(kind, f"{self._url} {what}", provider=self._provider.name)

    async def everything(self) -> None:
        models, after = self._models, ""
        for _ in range(_MOST_PAGES):
            page = await self._read(await self._answer("GET", self._form.address(self._provider, after)))
            self._dropped += page.dropped
            for model in page.models:
                if model.id in models or len(models) >= MOST_MODELS:
                    self._dropped += 1
                else:
                    models[model.id] = model
            if not page.next or page.next == after or len(models) >= MOST_MODELS:
                break
            after = page.next
        self.listed = True
        if self._url.endswith("/api/tags"):
            await self._show()

    async def _read(self, body: bytes) -> Page:
        try:
            return await asyncio.to_thread(self._form.parse, body)  # which may take a tenth of a second
        except UnreadableError as error:
            what = "answered with something that is no list of models. Check base_url."
            raise self.failed(ErrorKind.ERROR_KIND_PROVIDER_ERROR, what) from error

    async def _answer(self, method: str, url: str, body: bytes = b"") -> bytes:
        headers = self._form.headers(self._provider)
        if body:
            headers["Content-Type"] = "application/json"
        request = OutboundRequest(url, headers, body, _TIMEOUTS, self._provider.name, "", method=method)
        answer = await self._sender.send(request)
        try:
            if answer.status in {401, 403}:
                raise self.failed(ErrorKind.ERROR_KIND_AUTH_FAILED, f"does not accept the credential (HTTP {answer.status}).")
            if answer.status != 200:
                what = f"answered with HTTP {answer.status}. Check base_url."
                raise self.failed(ErrorKind.ERROR_KIND_PROVIDER_ERROR, what)
            return await answer.read(_MOST_BYTES)
        finally:
            answer.close()

    async def _show(self) -> None:
        """Has Ollama show each of its models; one that it does not show stays as it is listed."""
        url = self._url.removesuffix("/api/tags") + "/api/show"
        places = asyncio.Semaphore(_ASKED_AT_ONCE)

        async def show(model: FoundModel) -> None:
            async with places:
                with contextlib.suppress(GatewayError):
                    body = await self._answer("POST", url, orjson.dumps({"model": model.id}))
                    self._models[model.id] = ollama.shown(model, body)

        async with asyncio.TaskGroup() as group:
            for model in tuple(self._models.values()):
                group.create_task(show(model))
