"""Children that never outlive us, whatever kills us: how they are started, and how their whole groups are ended."""

from __future__ import annotations

import contextlib
import ctypes
import os
import resource
import signal
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from controlplane.local import guard

_PR_SET_PDEATHSIG = 1

ENOUGH_FILES = 65_536
"""25,000 clients, as many upstream connections, and some."""


class Children:
    """Starts processes, each in a group of its own.

    Two nets hold them. On Linux the kernel kills a child whose parent died; everywhere a guard process kills its group,
    which also reaches what a wrapping command forked. Start children from the main thread only: to the kernel that
    thread is the parent.
    """

    def __init__(self) -> None:
        _allow_many_files()
        self._guard = subprocess.Popen(
            [sys.executable, "-I", "-S", guard.__file__],
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            start_new_session=True,
        )
        assert self._guard.stdin is not None
        self._line = self._guard.stdin.fileno()
        self._bind_to_parent = _binder()

    def start(self, argv: Sequence[str], env: Mapping[str, str], log: Path) -> subprocess.Popen[bytes]:
        """Start a command with both outputs appended to `log`. Raises OSError where it cannot be run."""
        line = self._line

        def enlist() -> None:
            # Between fork and exec, so that there is no moment in which a group exists and nobody knows it.
            self._bind_to_parent()
            os.write(line, b"+%d\n" % os.getpid())

        with log.open("ab") as output:
            return subprocess.Popen(
                list(argv),
                env=dict(env),
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                process_group=0,
                preexec_fn=enlist,  # noqa: PLW1509 (the supervisor has one thread)
            )

    def sweep(self, group: int) -> None:
        """Kill what is left of the group of a child that has ended."""
        signal_group(group, signal.SIGKILL)
        with contextlib.suppress(BrokenPipeError):
            os.write(self._line, b"-%d\n" % group)

    def close(self) -> None:
        """Let the guard finish its work."""
        assert self._guard.stdin is not None
        with contextlib.suppress(BrokenPipeError):
            self._guard.stdin.close()
        self._guard.wait()


def signal_group(group: int, number: int) -> None:
    with contextlib.suppress(ProcessLookupError, PermissionError):  # gone, or on macOS only its zombie left
        os.killpg(group, number)


def _allow_many_files() -> None:
    """Raise our limit of open files, which children inherit: a shell's usual 1024 would be Envoy's cap on clients."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = ENOUGH_FILES if hard == resource.RLIM_INFINITY else min(hard, ENOUGH_FILES)
    if soft != resource.RLIM_INFINITY and soft < wanted:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))


def _binder() -> Callable[[], None]:
    """What a child calls before exec to be killed with its parent; nothing where the system cannot do that."""
    if sys.platform != "linux":
        return lambda: None
    prctl = ctypes.CDLL(None).prctl
    parent = os.getpid()

    def bind() -> None:
        prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
        if os.getppid() != parent:  # it died before we asked
            os._exit(1)

    return bind
