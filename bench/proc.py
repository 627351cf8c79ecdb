"""What the kernel says of a process: CPU time and memory, with those of its descendants added.

A gateway may work in threads (the kernel counts them as one process) and in child processes (which are looked for). Linux only.
"""

import contextlib
import dataclasses
import os
from pathlib import Path

_TICK_SECONDS = 1 / os.sysconf("SC_CLK_TCK")
_PROC = Path("/proc")


@dataclasses.dataclass(frozen=True)
class Memory:
    """Memory of a process and its descendants, in bytes."""

    rss: int
    """Resident; pages that processes share count once for each."""
    pss: int
    """Resident; pages that processes share are split among them. Equal to `rss` where the kernel does not say."""


def family(pid: int) -> list[int]:
    """Returns `pid` and all of its living descendants."""
    children: dict[int, list[int]] = {}
    for entry in _PROC.iterdir():
        if entry.name.isdecimal() and (fields := _stat(int(entry.name))):
            children.setdefault(int(fields[1]), []).append(int(entry.name))
    found = [pid]
    for parent in found:
        found += children.get(parent, [])
    return found


def cpu_seconds(pid: int) -> float:
    """Returns the CPU time that a process and its living descendants have used: user and system, all threads, in steps of 10 ms.

    Raises:
        ProcessLookupError: There is no such process.
    """
    if not _stat(pid):
        raise ProcessLookupError(f"process {pid} is gone")
    return sum(int(fields[11]) + int(fields[12]) for member in family(pid) if (fields := _stat(member))) * _TICK_SECONDS


def memory(pid: int) -> Memory:
    """Returns the memory of a process and its living descendants.

    Raises:
        ProcessLookupError: There is no such process.
    """
    found = [one for member in family(pid) if (one := _memory(member))]
    if not found:
        raise ProcessLookupError(f"process {pid} is gone")
    return Memory(rss=sum(one.rss for one in found), pss=sum(one.pss for one in found))


def busy_seconds() -> float:
    """Returns how long this machine's processors worked for processes, since it started; the sum over all of them.

    What the host took from them counts too, and what they did for interrupts does not.
    """
    _, user, nice, system, _, _, _, _, stolen, *_ = (_PROC / "stat").read_text().split("\n", 1)[0].split()
    return (int(user) + int(nice) + int(system) + int(stolen)) * _TICK_SECONDS


def _stat(pid: int) -> list[str]:
    """The fields of /proc/PID/stat behind the command's name, which may hold blanks; empty if the process is gone."""
    try:
        return (_PROC / str(pid) / "stat").read_text().rpartition(")")[2].split()
    except (FileNotFoundError, ProcessLookupError):
        return []


def _memory(pid: int) -> Memory | None:
    kilobytes: dict[str, int] = {}
    # The roll-up is exact but only for one's own processes; the status is there for all.
    for name in ("status", "smaps_rollup"):
        try:
            for line in (_PROC / str(pid) / name).read_text().splitlines():
                key, _, value = line.partition(":")
                if value.endswith(" kB"):
                    kilobytes[key] = int(value[:-3])
        except PermissionError:
            continue
        except (FileNotFoundError, ProcessLookupError):
            return None
    rss = kilobytes.get("Rss", kilobytes.get("VmRSS", 0))
    return Memory(rss=rss * 1024, pss=kilobytes.get("Pss", rss) * 1024)


def listener(port: int) -> int | None:
    """Returns the process that listens on a TCP port, the first of its family; None if there is none that may be looked into."""
    sockets = {f"socket:[{inode}]" for table in ("tcp", "tcp6") for inode in _listening(table, port)}
    pids = sorted(int(entry.name) for entry in _PROC.iterdir() if entry.name.isdecimal())
    return next((pid for pid in pids if not sockets.isdisjoint(_descriptors(pid))), None)


def _descriptors(pid: int) -> list[str]:
    """What a process has open, as far as it may be looked into."""
    found = []
    with contextlib.suppress(OSError):
        for descriptor in (_PROC / str(pid) / "fd").iterdir():
            # It may be closed by now.
            with contextlib.suppress(OSError):
                found.append(str(descriptor.readlink()))
    return found


def _listening(table: str, port: int) -> list[str]:
    try:
        lines = (_PROC / "net" / table).read_text().splitlines()[1:]
    except OSError:
        return []
    rows = [line.split() for line in lines]
    return [row[9] for row in rows if row[3] == "0A" and int(row[1].rpartition(":")[2], 16) == port]
