"""Kill the process groups that a dead parent left behind: a program of its own, standard library only.

It reads lines `+PGID` and `-PGID` from standard input, whose other end only the supervisor holds. When that end closes,
however the supervisor died, every group still on the list is killed.
"""

from __future__ import annotations

import contextlib
import os
import signal
import sys


def main() -> None:
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    groups: set[int] = set()
    for line in sys.stdin:
        act, group = line[0], int(line[1:])
        (groups.add if act == "+" else groups.discard)(group)
    for group in groups:
        with contextlib.suppress(OSError):  # already gone
            os.killpg(group, signal.SIGKILL)


if __name__ == "__main__":
    main()
