"""The store in a Valkey or Redis server, which any number of processes and machines share.

Each method is one round trip: claims are a script that the server runs as a whole (`claims.lua`), by its own clock. The client's
library is imported when the store is made, since a gateway without such a server needs none of it.
"""

from collections.abc import Awaitable, Sequence
from importlib.resources import files
from typing import Any, Final, TypeVar

from gateway.state.claims import MICRO, Amount, Claim, Left, Place, Rate, Settlement, Verdict
from gateway.state.store import StoreError

T = TypeVar("T")

# The braces keep all keys on one server of a cluster, without which no script may touch two of them.
_PREFIX: Final = "{twinspan}:"
_TIMEOUT_SECONDS: Final = 2.0
_MOST_CONNECTIONS: Final = 64
_ADD: Final = "local total = redis.call('INCRBY', KEYS[1], ARGV[1]) redis.call('PEXPIRE', KEYS[1], ARGV[2]) return total"


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
        self._add = self._client.register_script(_ADD)

    async def start(self) -> None:
        """See `Store.start`."""

    async def close(self) -> None:
        """See `Store.close`."""
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
        arguments: list[str | int] = [mode]
        for claim, amount in zip(claims, used, strict=True):
            arguments += (*_written(claim), amount)
        answer: list[int] = await self._ask(self._claims(keys=[_PREFIX + claim.key for claim in claims], args=arguments))
        return answer

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
