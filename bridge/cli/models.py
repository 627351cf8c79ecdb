"""The table that `twinspan models` prints."""

from collections.abc import Iterable, Iterator

from twinspan.v1 import models_pb2

_HEADINGS = ("model", "by", "context", "output", "in $/1M", "cached", "out $/1M", "can")


def table(models: Iterable[models_pb2.Model]) -> Iterator[str]:
    """Gives the lines of a table of models, its heading first. What is not known is a dash."""
    rows = [_HEADINGS, *map(_row, models)]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    for row in rows:
        cells = (
            cell.rjust(width) if 2 <= place <= 6 else cell.ljust(width)
            for place, (cell, width) in enumerate(zip(row, widths, strict=True))
        )
        yield "  ".join(cells).rstrip()


def _row(model: models_pb2.Model) -> tuple[str, ...]:
    return (
        model.id,
        model.owned_by,
        f"{model.context_window:,}" if model.HasField("context_window") else "-",
        f"{model.max_tokens:,}" if model.HasField("max_tokens") else "-",
        f"{model.input_cost_per_1m:g}" if model.HasField("input_cost_per_1m") else "-",
        f"{model.cached_input_cost_per_1m:g}" if model.HasField("cached_input_cost_per_1m") else "-",
        f"{model.output_cost_per_1m:g}" if model.HasField("output_cost_per_1m") else "-",
        ", ".join(model.capabilities) or "-",
    )
