"""The long request of workload W3: a coding agent's hundredth turn, 200 KB of JSON.

120 messages (a system prompt, the task, then tool calls and what they returned: code with its newlines, quotes and backslashes),
20 tool definitions with JSON schemas, and a dozen planted secrets of the kinds that agents come across. It is made from a fixed
seed, so every run sends the same bytes, but for one number in the last message that makes successive turns differ.
"""

import json
import random
from typing import Any

from bench.answers import dump

REQUEST_BYTES = 200_000
_MESSAGES = 120
_TOOLS = 20
_VERBS = ("read", "write", "search", "list", "run", "apply", "move", "open", "fetch", "format")
_NOUNS = ("file", "tree", "test", "patch", "symbol", "branch", "process", "page", "table", "log")
_WORDS = (
    *("value", "key", "count", "item", "path", "line", "node", "state", "result", "index", "buffer"),
    *("offset", "token", "frame", "query", "record", "batch", "cache"),
)
_ALPHABET = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789"


def bodies(model: str, *, variants: int = 8) -> list[bytes]:
    """Returns `variants` bodies of `REQUEST_BYTES` each that differ in their last message."""
    return [_body(model, turn) for turn in range(variants)]


def _body(model: str, turn: int) -> bytes:
    # The seed makes the same conversation for every turn, as an agent sends it.
    rng = random.Random(20_260_101)
    messages = _conversation(rng)
    tools = [_tool(rng, number) for number in range(_TOOLS)]
    request = {"model": model, "messages": messages, "tools": tools, "tool_choice": "auto", "temperature": 0.2}
    messages[-1]["content"] = f"turn {turn:04}\n{_code(rng, 7000)}\n"
    messages[-1]["content"] += "#" * (REQUEST_BYTES - len(dump(request)))
    return dump(request)


def _conversation(rng: random.Random) -> list[dict[str, Any]]:
    secrets = _secrets(rng)
    messages: list[dict[str, Any]] = [
        {"role": "system", "content": _prose(rng, 5000)},
        {"role": "user", "content": "The tests of the parser fail since yesterday. " + _prose(rng, 600)},
    ]
    while len(messages) < _MESSAGES:
        call = f"call_{_random(rng, 24)}"
        name = f"{rng.choice(_VERBS)}_{rng.choice(_NOUNS)}"
        arguments = json.dumps({"path": f"src/{rng.choice(_WORDS)}.py", "pattern": 'def "(\\w+)"\n', "limit": rng.randrange(500)})
        messages.append(
            {
                "role": "assistant",
                "content": _prose(rng, rng.randrange(40, 200)),
                "tool_calls": [{"id": call, "type": "function", "function": {"name": name, "arguments": arguments}}],
            }
        )
        content = _code(rng, rng.randrange(1200, 3000))
        if len(messages) % 10 == 5:
            content += f"\n# found in the environment: {secrets.pop()}\n"
        messages.append({"role": "tool", "tool_call_id": call, "content": content})
    return messages


def _tool(rng: random.Random, number: int) -> dict[str, Any]:
    properties: dict[str, Any] = {
        f"{word}_{index}": {"type": rng.choice(("string", "integer", "boolean")), "description": _prose(rng, 90)}
        for index, word in enumerate(rng.sample(_WORDS, 6))
    }
    properties["options"] = {
        "type": "object",
        "properties": {"depth": {"type": "number", "minimum": 0.5}},
        "additionalProperties": False,
    }
    parameters = {"type": "object", "properties": properties, "required": list(properties)[:2], "additionalProperties": False}
    name = f"{_VERBS[number % 10]}_{_NOUNS[number // 2]}"
    return {
        "type": "function",
        "function": {"name": name, "description": _prose(rng, 300), "parameters": parameters, "strict": True},
    }


def _secrets(rng: random.Random) -> list[str]:
    """Made-up credentials. Their prefixes are put together here, so that nothing that scans this tree takes them for found ones."""
    header = "-----{} RSA PRIVATE KEY-----"
    return [
        "AK" + "IA" + _random(rng, 16).upper(),
        "gh" + "p_" + _random(rng, 36),
        "gl" + "pat-" + _random(rng, 20),
        "s" + "k-proj-" + _random(rng, 48),
        "sk-a" + "nt-api03-" + _random(rng, 60),
        "xo" + "xb-123456789012-" + _random(rng, 24),
        "np" + "m_" + _random(rng, 36),
        ".".join(("ey" + "J" + _random(rng, 33), "ey" + "J" + _random(rng, 80), _random(rng, 43))),
        "\n".join((header.format("BEGIN"), _random(rng, 64), _random(rng, 64), header.format("END"))),
        "postgres://app:" + _random(rng, 20) + "@db.internal:5432/app",
        f'password = "{_random(rng, 18)}"',
        "AI" + "za" + _random(rng, 35),
    ]


def _code(rng: random.Random, length: int) -> str:
    lines: list[str] = []
    size = 0
    while size < length:
        a, b, c = rng.sample(_WORDS, 3)
        line = rng.choice(
            (
                f"    def {a}_{b}(self, {c}: int) -> dict[str, object]:",
                f'        """Returns the {a} of a {b}, or the "{c}" if there is none."""',
                f"        {a} = self._{b}[{rng.randrange(100)}].get('{c}', \"\")",
                f"        if not {a} or {b} > {rng.randrange(1000)}:",
                f'            raise ValueError(f"{a} {{{b}!r}} is no {c}\\n")',
                f"\t// {a}: {b} → {c}; see C:\\\\src\\\\{a}",
                "",
            )
        )
        lines.append(line)
        size += len(line) + 1
    return "\n".join(lines)


def _prose(rng: random.Random, length: int) -> str:
    words: list[str] = []
    size = 0
    while size < length:
        words.append(rng.choice(_WORDS) + ("." if rng.random() < 0.1 else ""))
        size += len(words[-1]) + 1
    return " ".join(words)


def _random(rng: random.Random, length: int) -> str:
    return "".join(rng.choices(_ALPHABET, k=length))
