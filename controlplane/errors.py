"""What can go wrong in the control plane.

ControlPlaneError
├── ConfigRejected          the operator's document has problems (all of them, with places)
├── RevisionConflict       somebody else wrote in between
├── TranslationInconsistent  our fault: the snapshot does not hold together
├── LimitsRejected          the rate-limit service says that an operation on a caller does not fit
├── StateUnwritable        the state directory does not take, or does not give back, what has to be kept
├── LimitsUnavailable      no rate-limit service, or no store behind it, answers
├── EnvoyUnavailable       the Envoy binary that judges configurations cannot be run
├── api.errors.ApiError    a handler ends with an answer other than success
├── local.exits.Failure    a verb of `mgw` ends with a message and an exit status
└── local.ready.NotReady   a part is not ready yet; the message says what it waits for

The demo services stand apart: local.demo.wire.BadRequest ends a connection that is not HTTP/1.1.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class Problem:
    """One finding about a configuration document, or a warning.

    `path` is dotted, as in `routes.3.service`; `line` and `column` count from 1 and are 0 where there is no text to
    point at.
    """

    path: str
    message: str
    line: int = 0
    column: int = 0

    def at(self, source: str, kind: str = "") -> str:
        """As a line that editors understand: `FILE:LINE:COL: path: message`, with `kind` before the path."""
        place = f"{source}:{self.line}:{self.column}: {kind}" if self.line else f"{source}: {kind}"
        return place + (f"{self.path}: {self.message}" if self.path else self.message)


class ControlPlaneError(Exception):
    """The root of what this package raises."""


class ConfigRejected(ControlPlaneError):
    """The document is not one the gateway could run; `problems` lists everything that was found."""

    def __init__(self, problems: Sequence[Problem]) -> None:
        super().__init__("; ".join(f"{problem.path}: {problem.message}" for problem in problems))
        self.problems = tuple(problems)


class RevisionConflict(ControlPlaneError):
    """The revision that the writer based the change on is no longer the current one."""

    def __init__(self, expected: int, current: int) -> None:
        super().__init__(f"revision {expected} was expected, but revision {current} is current")
        self.expected = expected
        self.current = current


class TranslationInconsistent(ControlPlaneError):
    """A snapshot refers to something that it does not contain."""


class EnvoyUnavailable(ControlPlaneError):
    """No Envoy binary was found, or it could not be run."""


class StateUnwritable(ControlPlaneError):
    """What has to be kept cannot be; nothing was changed."""


class LimitsRejected(ControlPlaneError):
    """What was asked of a caller's counters does not fit; the message says what."""


class LimitsUnavailable(ControlPlaneError):
    """A caller's counters cannot be reached now."""
