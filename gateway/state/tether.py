"""Becomes another program that ends when its parent does. Run as a file, with the parent's process id and the program's command.

It imports nothing of the gateway and is gone with the `exec`, so it costs nothing. Only Linux can promise a process's end to its
child; elsewhere the program outlives a parent that is killed.
"""

import ctypes
import os
import signal
import sys

_SET_PARENT_DEATH_SIGNAL = 1  # PR_SET_PDEATHSIG of <linux/prctl.h>


def main() -> None:
    """Ties this process to its parent and becomes the program."""
    parent, *command = sys.argv[1:]
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_SET_PARENT_DEATH_SIGNAL, signal.SIGTERM)
        if os.getppid() != int(parent):  # it died before the promise was made
            sys.exit(1)
    os.execv(command[0], command)  # noqa: S606 (no shell is wanted)


if __name__ == "__main__":
    main()
