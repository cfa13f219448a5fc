"""What can go wrong in the kit, each class beside what raises it.

StartFailed              the process cannot start: one line for the operator, exit status 1
YamlRejected             a text passes the bounds
└── YamlUnreadable       it is not YAML
jwk.KeyUnreadable        a key, or a set of keys, cannot be used
jwks_fetch.FetchFailed   the source did not return a key set
http2.call.Status        a call ends with a gRPC status other than OK
http2.frames.Http2Error  a peer breaks the protocol
├── ConnectionFailure    ends the connection
└── StreamFailure        ends one stream
"""

from __future__ import annotations


class StartFailed(Exception):
    """The process cannot start. The message is one line that says what to do."""


class YamlRejected(Exception):
    """A text passes the bounds of `service_kit.bounded_yaml`."""

    def __init__(self, message: str, path: tuple[str | int, ...], line: int, column: int) -> None:
        super().__init__(message)
        self.message = message
        self.path = path
        """Keys and indexes down to the value."""
        self.line = line
        self.column = column
        """Both from 1."""


class YamlUnreadable(YamlRejected):
    """A text is not YAML."""
