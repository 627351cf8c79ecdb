"""Asks one provider for its models, within 10 seconds in all and 10 MiB an answer.

Above are discovery, and the probe of `twinspan validate`. Below are the forms, which read, and the sender, which follows no
redirect.
"""

import asyncio
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
            return await asking.everything()
    except TimeoutError as error:
        raise asking.failed(ErrorKind.ERROR_KIND_PROVIDER_TIMEOUT, f"did not answer in {SECONDS:g} s.") from error
    except GatewayError as error:
        error.message = provider.cleansed(error.message)
        raise


class _Asking:
    """One round of questions to one provider."""

    def __init__(self, provider: Provider, sender: Sender) -> None:
        self._provider = provider
        self._sender = sender
        self._form: Form = FORMS[provider.listing_style]
        self._url = self._form.address(provider)

    def failed(self, kind: ErrorKind.ValueType, what: str) -> GatewayError:
        return GatewayError(kind, f"{self._url} {what}", provider=self._provider.name)

    async def everything(self) -> Listing:
        models: dict[str, FoundModel] = {}
        dropped, after = 0, ""
        for _ in range(_MOST_PAGES):
            page = await self._read(await self._answer("GET", self._form.address(self._provider, after)))
            dropped += page.dropped
            for model in page.models:
                if model.id in models or len(models) >= MOST_MODELS:
                    dropped += 1
                else:
                    models[model.id] = model
            if not page.next or page.next == after or len(models) >= MOST_MODELS:
                break
            after = page.next
        found = tuple(models.values())
        return Listing(await self._shown(found) if self._url.endswith("/api/tags") else found, dropped)

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

    async def _shown(self, models: tuple[FoundModel, ...]) -> tuple[FoundModel, ...]:
        """Returns Ollama's models with what it shows of each; one that it does not show stays as it is listed."""
        url = self._url.removesuffix("/api/tags") + "/api/show"
        places = asyncio.Semaphore(_ASKED_AT_ONCE)

        async def show(model: FoundModel) -> FoundModel:
            async with places:
                try:
                    return ollama.shown(model, await self._answer("POST", url, orjson.dumps({"model": model.id})))
                except GatewayError:
                    return model

        async with asyncio.TaskGroup() as group:
            asked = [group.create_task(show(model)) for model in models]
        return tuple(task.result() for task in asked)
