"""The README's examples, as they stand there, against a gateway: only its addresses are put in."""

import re
import sys
from pathlib import Path

import pytest

from tests.clients.conftest import GOOGLEAPIS, NODE, PROTOS, Address, output
from tests.flows.commands import ROOT, TWINSPAN, run

pytestmark = pytest.mark.asyncio(loop_scope="module")

README = (ROOT / "README.md").read_text()


def example(heading: str, language: str) -> str:
    """Returns the first block in a language below a heading."""
    section = README.partition(f"\n{heading}\n")[2].partition("\n## ")[0]
    found = re.search(rf"```{language}\n(.*?)```", section, re.DOTALL)
    assert found, heading
    return found[1]


def here(code: str, gateway: Address) -> str:
    """Puts a gateway's addresses in for the usual ones, which must occur."""
    placed = code.replace("http://127.0.0.1:8080", gateway.url).replace("127.0.0.1:50051", gateway.target)
    assert placed != code
    return placed


async def test_the_curl_example_streams_an_answer(gateway: Address) -> None:
    printed = await output("sh", "-c", here(example("### curl", "sh"), gateway))
    assert printed.startswith('data: {"id"')
    assert printed.endswith("data: [DONE]\n\n")


@pytest.mark.parametrize("heading", ["### The OpenAI SDK", "### gRPC from Python"])
async def test_the_python_examples_print_an_answer(gateway: Address, heading: str) -> None:
    assert (await output(sys.executable, "-c", here(example(heading, "python"), gateway))).strip()


@pytest.mark.skipif(not (NODE / "node_modules").is_dir(), reason="Node is not installed")
async def test_the_node_example_prints_an_answer(gateway: Address) -> None:
    code = here(example("### gRPC from Node", "js"), gateway)
    variables = {"TWINSPAN_PROTO": str(PROTOS), "GOOGLEAPIS": str(GOOGLEAPIS)}
    assert (await output("node", "--input-type=module", cwd=NODE, stdin=code, **variables)).strip()


async def test_the_terminal_examples_print_answers(gateway: Address) -> None:
    code = example("### A terminal", "sh").replace("twinspan ", f"{TWINSPAN} ").replace("127.0.0.1:50051", gateway.target)
    printed = await output("sh", "-ec", code, TWINSPAN_URL=gateway.url)
    assert any(line.startswith("tool-caller ") for line in printed.splitlines())
    assert len(printed.strip().splitlines()) >= 4


async def test_the_configuration_example_is_valid(tmp_path: Path) -> None:
    (tmp_path / "twinspan.yaml").write_text(example("## Start", "yaml"))
    checked = await run("validate", cwd=tmp_path, OPENAI_API_KEY="sk-of-a-test")
    assert (checked.code, checked.err) == (0, "")
