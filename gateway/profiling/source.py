"""The functions of a source file by their lines, for whoever knows places by file and line alone.

It goes by indentation, line by line, and not by a parser, which would hold the interpreter's lock for as long as a file is long.
So a line of a text that looks like code may be taken for some. Above is `heap`.
"""

import linecache
import re
import sys
from bisect import bisect_right
from typing import Final

_DEFINITION: Final = re.compile(r"(\s*)(?:async\s+def|def|class)\s+(\w+)")
_INDENT: Final = re.compile(r"(\s*)[\w@]")


class Functions:
    """Names of functions, each file read once."""

    def __init__(self) -> None:
        files = {getattr(module, "__file__", None): name for name, module in list(sys.modules.items())}
        self._modules = {file: name for file, name in files.items() if file is not None}
        self._known: dict[str, tuple[list[int], list[str]]] = {}

    def name(self, filename: str, line: int) -> str:
        """Returns the qualified name of the function at a line, with its module; the file and the line if there is no source."""
        starts, names = self._known.get(filename) or self._read(filename)
        place = bisect_right(starts, line) - 1
        module = self._modules.get(filename) or filename.rpartition("/")[2]
        if not starts:
            return f"{module}:{line}"
        return f"{module}.{names[place]}" if place >= 0 and names[place] else f"{module}.<module>"

    def _read(self, filename: str) -> tuple[list[int], list[str]]:
        starts: list[int] = []
        names: list[str] = []
        inside: list[tuple[int, str]] = []
        for number, text in enumerate(linecache.getlines(filename), 1):
            match = _DEFINITION.match(text) or _INDENT.match(text)
            if match is None:
                continue
            indent = len(match[1].expandtabs())
            before = len(inside)
            while inside and inside[-1][0] >= indent:
                inside.pop()
            if match.re is _DEFINITION:
                inside.append((indent, match[2]))
            elif len(inside) == before and starts:
                continue
            starts.append(number)
            names.append(".".join(name for _, name in inside))
        self._known[filename] = starts, names
        return starts, names
