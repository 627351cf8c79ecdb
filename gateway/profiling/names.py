"""Which function a line of a file belongs to, for tracemalloc knows no functions. Reads compiled modules from disk.

A module's code is asked of its loader, which finds it compiled, and is looked through for the function that holds the line.
"""

import sys
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from types import CodeType, ModuleType

from gateway.profiling.profile import Frame


class Names:
    """Places of lines by file. For one thread and one profile: files are read once, and modules that come later are not known."""

    def __init__(self) -> None:
        self._modules = dict(_files())
        self._codes: dict[str, dict[int, CodeType]] = {}
        self._places: dict[tuple[str, int], Frame] = {}

    def place(self, filename: str, line: int) -> Frame:
        """Returns the place of a line; without code, such as in `<string>`, it is named by its file."""
        known = self._places.get((filename, line))
        if known is None:
            known = self._places[filename, line] = self._find(filename, line)
        return known

    def _find(self, filename: str, line: int) -> Frame:
        module = self._modules.get(filename)
        if filename not in self._codes:
            code = _code(filename, module)
            self._codes[filename] = {} if code is None else _lines(code)
        code = self._codes[filename].get(line)
        if code is None:
            return Frame(module.__name__ if module else filename, filename, 0, line)
        # A module that was loaded from elsewhere, such as a cache, may name another file in its code.
        return Frame(f"{module.__name__}.{code.co_qualname}" if module else code.co_qualname, filename, code.co_firstlineno, line)


def _files() -> Iterator[tuple[str, ModuleType]]:
    """Yields the loaded modules by file; of the two that a program's main module may be, the one by its proper name."""
    modules = sorted(sys.modules.copy().items(), key=lambda item: item[0] != "__main__")
    for _, module in modules:
        # Not by attribute, for there are modules that load themselves when they are asked for one.
        file = getattr(module, "__dict__", {}).get("__file__")
        if isinstance(file, str):
            yield file, module


def _code(filename: str, module: ModuleType | None) -> CodeType | None:
    """Returns the code of a file, of which there is none if it is no Python source or is gone."""
    spec = module.__spec__ if module else None
    with suppress(Exception):  # whatever a loader does
        found = spec.loader.get_code(spec.name)  # type: ignore[union-attr]  # most have it, and the others raise
        if isinstance(found, CodeType):
            return found
    with suppress(OSError, SyntaxError, ValueError):
        return compile(Path(filename).read_bytes(), filename, "exec", dont_inherit=True)
    return None


def _lines(code: CodeType) -> dict[int, CodeType]:
    """Returns the innermost code of each line. The line of a `def` is the outer one's, which makes the function there."""
    lines = {line: code for _, _, line in code.co_lines() if line}
    for inner in code.co_consts:
        if isinstance(inner, CodeType):
            within = _lines(inner)
            if inner.co_firstlineno in lines:
                within.pop(inner.co_firstlineno, None)
            lines |= within
    return lines
