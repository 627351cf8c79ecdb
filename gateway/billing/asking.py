"""Asks providers what is left, where they say it at an address of its own: in the background, and never for a request.

Above is `gateway.availability`; below is the sender, which follows no redirect. Only what is configured is asked.
"""

import asyncio
import logging
import time
from collections.abc import Callable, Iterable
from typing import Final

from twinspan.v1.errors_pb2 import ErrorKind
from yarl import URL

from gateway.billing.reading import Reading, UnreadableError, read
from gateway.config.billing import QuotaConfig
from gateway.errors import GatewayError
from gateway.providers.provider import Provider
from gateway.providers.sender import OutboundRequest, Sender, Timeouts

_log = logging.getLogger(__name__)

_SECONDS: Final = 10.0
_MOST_BYTES: Final = 256 * 1024
_TIMEOUTS: Final = Timeouts(connect=5.0, first_token=_SECONDS, idle=_SECONDS, total=_SECONDS)
_LEFT_OUT: Final = frozenset({"content-type"})


class Asking:
    """Asks, for as long as it runs."""

    def __init__(self, sender: Sender, said: Callable[[str, Reading, float], None]) -> None:
        """Makes one that is at rest.

        Args:
            sender: Sends.
            said: Is told what a provider says is left: its name, what it says, and how often it is asked in seconds.
        """
        self._sender = sender
        self._said = said
        self._tasks: dict[str, tuple[Provider, asyncio.Task[None]]] = {}
        self._stopping: set[asyncio.Task[None]] = set()

    def adopt(self, providers: Iterable[Provider]) -> None:
        """Goes over to these providers. One that is to be asked as before goes on in its time, another is asked at once."""
        wanted = {one.name: one for one in providers if one.billing is not None and _address(one) is not None}
        for name, (provider, task) in [*self._tasks.items()]:
            if name not in wanted or _asks(wanted[name]) != _asks(provider):
                self._stopping.add(task)
                task.add_done_callback(self._stopping.discard)
                task.cancel()
                del self._tasks[name]
        for name, provider in wanted.items():
            if name not in self._tasks:
                self._tasks[name] = (provider, asyncio.create_task(self._run(provider)))

    async def stop(self) -> None:
        """Rests."""
        self.adopt(())
        await asyncio.gather(*self._stopping, return_exceptions=True)

    async def _run(self, provider: Provider) -> None:
        quota = provider.billing.quota if provider.billing is not None else None
        while quota is not None:
            try:
                self._said(provider.name, await self._ask(provider, quota), quota.interval_seconds)
            except GatewayError as error:
                _log.warning("What is left at '%s' was not found out. %s", provider.name, provider.cleansed(error.message))
            except UnreadableError as error:
                _log.warning("What is left at '%s' was not found out: %s. Check its billing.quota.", provider.name, error)
            except Exception:  # noqa: BLE001 (the next answer may be of use)
                _log.exception("What is left at '%s' was not found out.", provider.name)
            await asyncio.sleep(quota.interval_seconds)

    async def _ask(self, provider: Provider, quota: QuotaConfig) -> Reading:
        """Returns what a provider says is left.

        Raises:
            GatewayError: There is no answer, or it is an error.
            UnreadableError: It does not say.
        """
        url, headers = _asks(provider)[:2]
        request = OutboundRequest(URL(url), headers, b"", _TIMEOUTS, provider.name, "", method="GET")
        answer = await self._sender.send(request)
        try:
            if answer.status != 200:
                what = f"{quota.url} answered with HTTP {answer.status}. Check billing.quota.url and headers."
                raise GatewayError(ErrorKind.ERROR_KIND_PROVIDER_ERROR, what, provider=provider.name)
            return read(quota, answer.headers, await answer.read(_MOST_BYTES), time.time())
        finally:
            answer.close()


def _address(provider: Provider) -> str | None:
    quota = provider.billing.quota if provider.billing is not None else None
    return quota.url if quota is not None and quota.source == "api" else None


def _asks(provider: Provider) -> tuple[str, dict[str, str], object]:
    """Returns what a provider is asked: the address, the headers, and where the answer is read.

    The provider's credential goes to the provider's own host alone.
    """
    url = _address(provider) or ""
    quota = provider.billing.quota if provider.billing is not None else None
    own = (
        provider.headers
        if URL(url).origin() == provider.chat_url.origin()
        else {"User-Agent": provider.headers.get("User-Agent", "")}
    )
    headers = {name: value for name, value in own.items() if name.lower() not in _LEFT_OUT}
    return url, headers | (quota.headers if quota is not None else {}), quota
