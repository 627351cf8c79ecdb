"""What the operating system says of this process. On others than Linux it says little or nothing.

Names are those of `prometheus_client`'s metrics without their prefix, and `open_files` and `asyncio_tasks`, which are the gateway's
own.
"""

import os
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path

from prometheus_client import Metric, ProcessCollector
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily
from prometheus_client.registry import Collector
from twinspan.v1 import admin_pb2

_OWN = Path("/proc/self")
_PREFIX = "process_"
_HELP = {
    "virtual_memory_bytes": "Virtual memory size in bytes.",
    "resident_memory_bytes": "Resident memory size in bytes.",
    "start_time_seconds": "Start time of the process since unix epoch in seconds.",
    "cpu_seconds_total": "Total user and system CPU time spent in seconds.",
    "open_fds": "Number of open file descriptors.",
    "max_fds": "Maximum number of open file descriptors.",
}


def facts(tasks: int = 0) -> dict[str, float]:
    """Returns memory, processor time and open files, as far as they can be told; it reads a directory that may be long.

    Args:
        tasks: How many tasks the event loop has.
    """
    families = ProcessCollector(registry=None).collect()
    found = {sample.name.removeprefix(_PREFIX): sample.value for family in families for sample in family.samples}
    found["asyncio_tasks"] = float(tasks)
    if "open_fds" in found:
        found["open_files"] = found["open_fds"] - 1  # the listing is one of them
    return found


def fill(process: admin_pb2.ProcessStats, found: Mapping[str, float] | None = None) -> None:
    """Puts in memory and open files, as far as they can be told: of this process, or of those whose facts are given."""
    if found is None:
        found = _own()
    if "resident_memory_bytes" in found:
        process.resident_memory_bytes = int(found["resident_memory_bytes"])
    if "open_files" in found:
        process.open_files = int(found["open_files"])


class ProcessesCollector(Collector):
    """Gives, as metrics, what the operating system says of several processes."""

    def __init__(self, found: Mapping[str, float]) -> None:
        self._found = found

    def describe(self) -> Iterable[Metric]:
        """Returns nothing: the registry need not collect to learn the names."""
        return ()

    def collect(self) -> Iterator[Metric]:
        """Yields every metric."""
        for name, text in _HELP.items():
            if name in self._found:
                kind = CounterMetricFamily if name.endswith("_total") else GaugeMetricFamily
                yield kind(_PREFIX + name.removesuffix("_total"), text, value=self._found[name])


def _own() -> dict[str, float]:
    found: dict[str, float] = {}
    try:
        pages = int((_OWN / "statm").read_text().split()[1])
        found["resident_memory_bytes"] = float(pages * os.sysconf("SC_PAGE_SIZE"))
        found["open_files"] = float(sum(1 for _ in (_OWN / "fd").iterdir()) - 1)  # this listing is one of them
    except (OSError, ValueError, IndexError):
        return found
    return found
