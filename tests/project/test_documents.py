"""What the documents promise: links that lead somewhere, decisions in order, a changelog that knows the version."""

import re
import tomllib
from collections.abc import Iterator, Sequence
from pathlib import Path
from urllib.parse import unquote

LINK = re.compile(r"(?<!\\)\[(?:[^\]\[]|\[[^\]]*\])*\]\(\s*<?([^)\s>]+)>?[^)]*\)")
REFERENCE = re.compile(r"^\[[^\]]+\]:\s*<?(\S+?)>?(?:\s|$)", re.MULTILINE)
HTML = re.compile(r"""<(?:a|img|source)\b[^>]*?\b(?:href|src|srcset)=["']([^"']+)["']""")


def prose(text: str) -> str:
    """The text without code, in which brackets mean other things."""
    text = re.sub(r"^(`{3,}|~{3,}).*?^\1\s*$", "", text, flags=re.MULTILINE | re.DOTALL)
    return re.sub(r"(`+)(?!`).+?(?<!`)\1(?!`)", "", text)


def anchors(text: str) -> set[str]:
    """The anchors that GitHub gives to the headings of a document, and those that it sets itself."""
    found: dict[str, int] = {}
    names = set(re.findall(r"""<a\b[^>]*?\b(?:id|name)=["']([^"']+)["']""", text))
    without_blocks = re.sub(r"^(`{3,}|~{3,}).*?^\1\s*$", "", text, flags=re.MULTILINE | re.DOTALL)
    for heading in re.findall(r"^#{1,6}\s+(.+?)\s*#*\s*$", without_blocks, re.MULTILINE):
        plain = re.sub(r"\[([^\]]*)\]\([^)]*\)", r"\1", heading)
        slug = re.sub(r"[^\w\- ]", "", plain.lower()).replace(" ", "-")
        names.add(f"{slug}-{found[slug]}" if slug in found else slug)
        found[slug] = found.get(slug, 0) + 1
    return names


def links(text: str) -> Iterator[str]:
    for pattern in (LINK, REFERENCE, HTML):
        yield from (target for target in pattern.findall(prose(text)) if not re.match(r"[a-z][a-z0-9+.-]*:", target))


def dead(root: Path, document: Path, known: set[Path]) -> Iterator[str]:
    text = (root / document).read_text(encoding="utf-8")
    for link in links(text):
        path, _, anchor = unquote(link).partition("#")
        target = root / document if not path else (root / document.parent / path).resolve()
        if not target.is_relative_to(root) or not (target.is_dir() or target.relative_to(root) in known):
            yield f"{document}: {link}: no such file in the tree"
        elif anchor and target.suffix == ".md" and anchor not in anchors(target.read_text(encoding="utf-8")):
            yield f"{document}: {link}: no such heading"


def test_every_link_of_a_document_leads_somewhere(root: Path, files: Sequence[Path]) -> None:
    known = set(files)
    assert [found for document in files if document.suffix == ".md" for found in dead(root, document, known)] == []


def test_a_dead_link_is_found(tmp_path: Path) -> None:
    page = Path("page.md")
    (tmp_path / page).write_text(
        "# One `two`\n[a](#one-two) [b](gone.md) [c](page.md#gone) `[d](code.md)`\n[e]: gone.md\n[f](https://example.com)\n"
    )
    assert [found.split(": ")[1] for found in dead(tmp_path, page, {page})] == ["gone.md", "page.md#gone", "gone.md"]


def test_decisions_are_numbered_without_gaps(files: Sequence[Path]) -> None:
    numbers = [path.name.partition("-")[0] for path in files if path.parent == Path("docs/adr") and path.name != "README.md"]
    width = len(numbers[0]) if numbers else 0
    assert numbers == [f"{number:0{width}}" for number in range(1, len(numbers) + 1)]


def test_the_changelogs_newest_entry_is_the_projects_version(root: Path) -> None:
    version = tomllib.loads((root / "pyproject.toml").read_text(encoding="utf-8"))["project"]["version"]
    changelog = (root / "CHANGELOG.md").read_text(encoding="utf-8")
    newest = re.search(r"^## (\S+) \((unreleased|\d{4}-\d\d-\d\d)\)$", changelog, re.MULTILINE)
    assert newest is not None
    assert newest[1] == version
