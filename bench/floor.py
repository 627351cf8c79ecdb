"""The floor: the least that a reverse proxy on aiohttp can cost. It parses nothing and forwards the bytes, both ways, as they come.

This is what a gateway's figures are divided by. It stands on the libraries the gateway stands on and does none of its work.
"""

import argparse
from collections.abc import AsyncIterator, Iterable

import aiohttp
from aiohttp import web
from multidict import CIMultiDict

from bench import child

_SESSION = web.AppKey("session", aiohttp.ClientSession)
_UPSTREAM = web.AppKey("upstream", str)
_HOP_BY_HOP = frozenset({"connection", "host", "keep-alive", "te", "trailer", "transfer-encoding", "upgrade"})


def _end_to_end(headers: Iterable[tuple[str, str]]) -> CIMultiDict[str]:
    return CIMultiDict((name, value) for name, value in headers if name.lower() not in _HOP_BY_HOP)


async def _forward(request: web.Request) -> web.StreamResponse:
    session, url = request.app[_SESSION], request.app[_UPSTREAM] + request.path_qs
    data = request.content.iter_any() if request.body_exists else None
    headers = _end_to_end(request.headers.items())
    async with session.request(request.method, url, headers=headers, data=data, allow_redirects=False) as answer:
        response = web.StreamResponse(status=answer.status, headers=_end_to_end(answer.headers.items()))
        await response.prepare(request)
        async for piece in answer.content.iter_any():
            await response.write(piece)
        await response.write_eof()
        return response


async def _session(app: web.Application) -> AsyncIterator[None]:
    connector = aiohttp.TCPConnector(limit=0)
    timeout = aiohttp.ClientTimeout(total=None)
    async with aiohttp.ClientSession(connector=connector, timeout=timeout, auto_decompress=False) as session:
        app[_SESSION] = session
        yield


def application(upstream: str) -> web.Application:
    """Returns the proxy as an application; `upstream` is the other side's scheme, host and port."""
    app = web.Application()
    app[_UPSTREAM] = upstream
    app.cleanup_ctx.append(_session)
    app.router.add_route("*", "/{path:.*}", _forward)
    return app


async def _main(upstream: str) -> None:
    runner = web.AppRunner(application(upstream), access_log=None)
    await runner.setup()
    site = web.TCPSite(runner, child.HOST, 0, backlog=4096)
    await site.start()
    child.ready(port=runner.addresses[0][1])
    await child.until_stopped()
    await runner.cleanup()


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="The benchmark's floor, by itself: a proxy that forwards bytes.")
    parser.add_argument("--upstream", required=True, help="where to forward to, such as http://127.0.0.1:9000")
    child.run(_main(parser.parse_args().upstream))
