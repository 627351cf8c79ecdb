"""What a profile is: stacks with values. Pure.

Collectors (`cpu`, `heap`, `tasks`, `block`, `mutex`) make profiles; `pprof` writes them as `go tool pprof` reads them, `text` as
people do.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from types import CodeType
from typing import Self, TypeAlias


@dataclass(frozen=True, slots=True)
class Frame:
    """A place in the code.

    Attributes:
        name: The function's qualified name with its module, such as `gateway.exchange.Exchange.open`.
        filename: The file.
        start_line: The function's first line; 0 if that is not known.
        line: The line that runs; 0 if that is not known.
    """

    name: str
    filename: str
    start_line: int
    line: int

    @classmethod
    def of(cls, code: CodeType, line: int | None, module: str = "") -> Self:
        """Returns the place of a line in a piece of code."""
        name = f"{module}.{code.co_qualname}" if module else code.co_qualname
        return cls(name, code.co_filename, code.co_firstlineno, line or 0)


Stack: TypeAlias = tuple[Frame, ...]
"""Frames, the innermost first."""

Labels: TypeAlias = tuple[tuple[str, str], ...]
"""Names and values that tell samples apart."""


@dataclass(frozen=True, slots=True)
class ValueType:
    """What a value counts.

    Attributes:
        type: What it is, such as `cpu`.
        unit: In what, such as `nanoseconds`, `bytes` or `count`.
    """

    type: str
    unit: str


@dataclass(slots=True)
class Profile:
    """Stacks with values.

    Attributes:
        value_types: What the values of each sample count, in order.
        period_type: What is sampled.
        period: How much of it lies between two samples; 0 if it is not sampled.
        started_ns: When it began, in nanoseconds since 1970.
        duration_ns: How long it took; 0 for a moment.
        comments: Sentences for whoever reads it.
        samples: The values by stack and labels.
    """

    value_types: Sequence[ValueType]
    period_type: ValueType
    period: int = 0
    started_ns: int = 0
    duration_ns: int = 0
    comments: Sequence[str] = ()
    samples: dict[tuple[Stack, Labels], list[int]] = field(default_factory=dict)

    def add(self, stack: Stack, *values: int, labels: Labels = ()) -> None:
        """Adds values to those of a stack."""
        known = self.samples.setdefault((stack, labels), [0] * len(self.value_types))
        for place, value in enumerate(values):
            known[place] += value
