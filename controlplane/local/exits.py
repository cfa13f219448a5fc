"""What a verb ends with: the exit statuses, and the failure that carries one."""

from __future__ import annotations

from controlplane.errors import ControlPlaneError

OK = 0
FAILED = 1
DIFFERS = 2  # only `diff --exit-code` says this
USAGE = 64  # EX_USAGE of sysexits.h
UNAVAILABLE = 69  # EX_UNAVAILABLE
TIMED_OUT = 75  # EX_TEMPFAIL


class Failure(ControlPlaneError):
    """Ends a verb: the message goes to standard error, the status to the shell."""

    def __init__(self, message: str, status: int = FAILED) -> None:
        super().__init__(message)
        self.status = status
