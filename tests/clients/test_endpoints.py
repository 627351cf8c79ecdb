"""The examples of docs/endpoints.md, as they stand there, against a gateway: only its addresses are put in."""

import re
import sys

import pytest

from tests.clients.conftest import Address, output
from tests.clients.test_readme import here
from tests.flows.commands import ROOT

pytestmark = pytest.mark.asyncio(loop_scope="module")

DOCUMENT = (ROOT / "docs/endpoints.md").read_text()
SECTIONS = {section.partition("\n")[0]: section for section in DOCUMENT.split("\n## ")[1:]}


def examples(language: str) -> list[tuple[str, str]]:
    """Returns every block of a language, each with its section's heading."""
    return [
        (heading, code)
        for heading, section in SECTIONS.items()
        for code in re.findall(rf"```{language}\n(.*?)```", section, re.DOTALL)
    ]


@pytest.mark.parametrize("heading", SECTIONS)
async def test_every_section_shows_both_surfaces(heading: str) -> None:
    assert "```sh\n" in SECTIONS[heading]
    assert "```python\n" in SECTIONS[heading]


@pytest.mark.parametrize(("heading", "code"), examples("sh"), ids=lambda value: value if "\n" not in value else "")
async def test_an_example_in_the_shell_gets_an_answer(gateway: Address, heading: str, code: str) -> None:
    printed = await output("sh", "-ec", here(code.replace("curl -s", "curl -sS --fail-with-body"), gateway))
    assert printed.strip(), heading


@pytest.mark.parametrize(("heading", "code"), examples("python"), ids=lambda value: value if "\n" not in value else "")
async def test_an_example_in_python_gets_an_answer(gateway: Address, heading: str, code: str) -> None:
    assert (await output(sys.executable, "-c", here(code, gateway))).strip(), heading
