"""`mgw down`: stop the gateway of a directory."""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path
from typing import Annotated

import typer

from controlplane.local.control import ask
from controlplane.local.exits import TIMED_OUT, Failure
from controlplane.local.runfile import Lock, RunDirectory

STOP_SECONDS = 40.0  # the supervisor drains for 5 s, then gives each of three groups 10 s
KILL_SECONDS = 5.0


def command(
    directory: Annotated[Path, typer.Option("--dir", help="The directory it runs in.")] = Path(".mgw"),
) -> None:
    """Stop the gateway and wait until all of it is gone. Fine where nothing runs."""
    runs_in = RunDirectory(directory.absolute())
    lock = Lock(runs_in)
    if lock.holder() is not None:
        _stop(runs_in, lock)
    runs_in.run_json.unlink(missing_ok=True)


def _stop(directory: RunDirectory, lock: Lock) -> None:
    try:
        ask(directory, {"verb": "stop"}, timeout_seconds=5)
    except Failure as failure:  # it hangs, or it is only just starting or stopping: a signal reaches it all the same
        pid = lock.holder()
        if pid:
            os.kill(pid, signal.SIGTERM)
        elif pid == 0:
            raise failure
    if _gone(lock, STOP_SECONDS):
        return
    pid = lock.holder()
    if pid:
        os.kill(pid, signal.SIGKILL)  # its parts die with it
    if not _gone(lock, KILL_SECONDS):
        raise Failure(f"the supervisor in {directory.path} (pid {pid}) does not stop", TIMED_OUT)


def _gone(lock: Lock, seconds: float) -> bool:
    deadline = time.monotonic() + seconds
    while lock.holder() is not None:
        if time.monotonic() > deadline:
            return False
        time.sleep(0.02)
    return True
