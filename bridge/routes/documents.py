"""The bridge's own description: the OpenAPI document, and a page that shows it."""

from importlib.resources import files

from aiohttp import web

from bridge.call import Call


class DocumentRoutes:
    """/openapi.json and /docs. Both are files of the package, read once."""

    def __init__(self) -> None:
        directory = files("bridge.openapi")
        self._document = (directory / "openapi.json").read_bytes()
        self._page = (directory / "page.html").read_bytes()

    async def openapi(self, call: Call) -> web.StreamResponse:
        """Gives the document."""
        return call.json(self._document)

    async def page(self, call: Call) -> web.StreamResponse:
        """Gives the page."""
        return web.Response(body=self._page, headers=call.answer_headers("text/html; charset=utf-8"))
