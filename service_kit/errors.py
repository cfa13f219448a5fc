"""What can go wrong in the kit, each class beside what raises it.

StartFailed              the process cannot start: one line for the operator, exit status 1
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
