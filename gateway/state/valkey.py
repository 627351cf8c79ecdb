"""The store in a Valkey or Redis server, which any number of processes and machines share.

Each method is one round trip: claims are a script that the server runs as a whole (`claims.lua`), by its own clock. What is asked
while a round trip is under way shares the next one, so that many requests at once cost few of them. The client's library is
imported when the store is made, since a gateway without such a server needs none of it.
"""

import asyncio
from collections.abc import Awaitable, Sequence
from dataclasses import dataclass
from importlib.resources import files
from typing import Any, Final, TypeVar

import msgspec

from gateway.state.claims import MICRO, Amount, Claim, Left, Place, Rate, Settlement, Verdict
from gateway.state.store import StoreError

T = TypeVar("T")

# The braces keep all keys on one server of a cluster, without which no script may touch two of them.
_PREFIX: Final = "{twinspan}:"
_TIMEOUT_SECONDS: Final = 2.0
_MOST_CONNECTIONS: Final = 64
_MOST_AT_ONCE: Final = 128
"""How many requests share a round trip at most: the server does nothing else meanwhile."""

_ENCODER: Final = msgspec.msgpack.Encoder()
_DECODER: Final = msgspec.msgpack.Decoder(list[list[int]])
_ADD: Final = "local total = redis.call('INCRBY', KEYS[1], ARGV[1]) redis.call('PEXPIRE', KEYS[1], ARGV[2]) return total"


@dataclass(slots=True)
class _Asked:
    """What one request asks of the script."""

    mode: str
    claims: Sequence[Claim]
    used: Sequence[int]
    answer: "asyncio.Future[list[int]]"

    @property
    def what(self) -> tuple[Sequence[Claim], Sequence[int]]:
        return self.claims, self.used

    def fail(self, error: StoreError) -> None:
        if not self.answer.done():
            self.answer.set_exception(StoreError(str(error)))


class ValkeyStore:
    """Keeps everything in a Valkey server."""

    shared = True

    def __init__(self, url: str, *, timeout_seconds: float = _TIMEOUT_SECONDS) -> None:
        """Makes a store; nothing is connected yet.

        Args:
            url: Where the server is: `valkey://`, `valkeys://`, `redis://` or `rediss://`, with user, password and database in
                it, or `unix://` and a path.
            timeout_seconds: How long one round trip may take.
        """
        from redis.asyncio import BlockingConnectionPool, Redis  # noqa: PLC0415 (see above)
        from redis.exceptions import RedisError  # noqa: PLC0415

        scheme, _, rest = url.partition("://")
        pool = BlockingConnectionPool.from_url(
            f"{scheme.replace('valkey', 'redis')}://{rest}",
            max_connections=_MOST_CONNECTIONS,
            timeout=timeout_seconds,
            socket_timeout=timeout_seconds,
            socket_connect_timeout=timeout_seconds,
        )
        self._errors: tuple[type[Exception], ...] = (RedisError, OSError, TimeoutError)
        self._client: Any = Redis(connection_pool=pool)
        self._claims = self._client.register_script((files("gateway.state") / "claims.lua").read_text())
        self._waiting: list[_Asked] = []
        self._sending: asyncio.Task[None] | None = None
        self._add = self._client.register_script(_ADD)

    async def start(self) -> None:
        """See `Store.start`."""

    async def close(self) -> None:
        """See `Store.close`."""
        if self._sending is not None:
            await asyncio.gather(self._sending, return_exceptions=True)
        await self._client.aclose(close_connection_pool=True)

    async def ping(self) -> None:
        """See `Store.ping`."""
        await self._ask(self._client.ping())

    async def claim(self, claims: Sequence[Claim]) -> Verdict:
        """See `Store.claim`."""
        return await self._judge("claim", claims)

    async def left(self, claims: Sequence[Claim]) -> Verdict:
        """See `Store.left`."""
        return await self._judge("left", claims)

    async def settle(self, settlements: Sequence[Settlement]) -> None:
        """See `Store.settle`."""
        if settlements:
            claims = [settlement.claim for settlement in settlements]
            await self._run("settle", claims, [settlement.used for settlement in settlements])

    async def seed(self, claim: Amount, spent: int) -> None:
        """See `Store.seed`."""
        await self._run("seed", [claim], [spent])

    def settle_at_once(self, settlements: Sequence[Settlement]) -> bool:  # noqa: ARG002 (it takes a round trip)
        """See `Store.settle_at_once`."""
        return False

    async def get(self, key: str) -> bytes | None:
        """See `Store.get`."""
        value: bytes | None = await self._ask(self._client.get(_PREFIX + key))
        return value

    async def put(self, key: str, value: bytes, seconds: float) -> None:
        """See `Store.put`."""
        await self._ask(self._client.set(_PREFIX + key, value, px=_milli(seconds)))

    async def delete(self, key: str) -> None:
        """See `Store.delete`."""
        await self._ask(self._client.delete(_PREFIX + key))

    async def add(self, key: str, amount: int, seconds: float) -> int:
        """See `Store.add`."""
        return int(await self._ask(self._add(keys=[_PREFIX + key], args=[amount, _milli(seconds)])))

    async def _judge(self, mode: str, claims: Sequence[Claim]) -> Verdict:
        if not claims:
            return Verdict([])
        refused, wait, *rest = await self._run(mode, claims, [0] * len(claims))
        left = [Left(amount, full / MICRO) for amount, full in zip(rest[::2], rest[1::2], strict=True)]
        return Verdict(left, refused - 1 if refused else None, wait / MICRO)

    async def _run(self, mode: str, claims: Sequence[Claim], used: Sequence[int]) -> list[int]:
        """Runs the script, in one round trip with whatever else is asked meanwhile."""
        asked = _Asked(mode, claims, used, asyncio.get_running_loop().create_future())
        self._waiting.append(asked)
        if self._sending is None or self._sending.done():
            self._sending = asyncio.create_task(self._send())
        return await asked.answer

    async def _send(self) -> None:
        while self._waiting:
            batch, self._waiting = self._waiting[:_MOST_AT_ONCE], self._waiting[_MOST_AT_ONCE:]
            keys: dict[str, int] = {}
            for asked in batch:
                for claim in asked.claims:
                    keys.setdefault(_PREFIX + claim.key, len(keys) + 1)
            groups = [
                (asked.mode, [(keys[_PREFIX + claim.key], *_written(claim), used) for claim, used in zip(*asked.what, strict=True)])
                for asked in batch
            ]
            try:
                answer = await self._ask(self._claims(keys=list(keys), args=[_ENCODER.encode(groups)]))
            except StoreError as error:
                for asked in batch:
                    asked.fail(error)
                continue
            for asked, numbers in zip(batch, _DECODER.decode(answer), strict=True):
                if asked.answer.done():
                    self._undo(asked, numbers)
                else:
                    asked.answer.set_result(numbers)

    def _undo(self, asked: "_Asked", numbers: Sequence[int]) -> None:
        """Gives back what was claimed for somebody who does not wait any more."""
        if asked.mode == "claim" and not numbers[0]:
            nobody = asyncio.get_running_loop().create_future()
            self._waiting.append(_Asked("settle", asked.claims, [0] * len(asked.claims), nobody))

    async def _ask(self, asking: Awaitable[T]) -> T:
        try:
            return await asking
        except self._errors as error:
            raise StoreError(f"The state store does not answer: {type(error).__name__}.") from error


def _written(claim: Claim) -> tuple[str | int, ...]:
    """Returns a claim as the script reads it."""
    match claim:
        case Rate():
            return ("rate", claim.limit, claim.cost, claim.period_seconds * MICRO, "", 0)
        case Place():
            return ("place", claim.most, 1, int(claim.lease_seconds * MICRO), claim.holder, 0)
        case Amount():
            return ("amount", claim.limit, claim.amount, int(claim.lease_seconds * MICRO), claim.holder, _milli(claim.keep_seconds))


def _milli(seconds: float) -> int:
    return max(1, int(seconds * 1000))
