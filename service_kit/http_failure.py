"""Why a request over HTTP got no answer, in words for an operator: clients bury the cause under their own errors."""

from __future__ import annotations

import socket
import ssl
from collections.abc import Iterator

NO_ANSWER = "the connection ended before an answer"


def why(error: BaseException) -> str:
    """The first cause that says something, without anything of the URL or of the answer."""
    causes = list(_causes(error))
    for cause in causes:
        words = _words(cause)
        if words is not None:
            return words
    return _protocol(causes)


def _causes(error: BaseException) -> Iterator[BaseException]:
    """The error, and below it what it came from, even where the client says `from None`."""
    yield error
    if isinstance(error, BaseExceptionGroup):
        for each in error.exceptions:
            yield from _causes(each)
    below = error.__cause__ or error.__context__
    if below is not None:
        yield from _causes(below)


def _words(error: BaseException) -> str | None:
    if isinstance(error, socket.gaierror):
        return f"the name does not resolve ({error.strerror or error.errno})"
    if isinstance(error, ssl.SSLCertVerificationError):
        return f"TLS: the certificate is not trusted: {error.verify_message}"
    if isinstance(error, ssl.SSLError):
        return f"TLS: {(error.reason or 'no handshake').replace('_', ' ').lower()}"
    if isinstance(error, ConnectionRefusedError):
        return "connection refused"
    if isinstance(error, ConnectionError):
        return NO_ANSWER
    if isinstance(error, TimeoutError):
        return "time-out"
    if isinstance(error, OSError) and error.strerror:
        return error.strerror.lower()
    return None


def _protocol(causes: list[BaseException]) -> str:
    """No error of the machine: the peer said something else than HTTP, or nothing."""
    names = {type(cause).__name__ for cause in causes}
    if "RemoteProtocolError" in names:
        said_nothing = "disconnected without" in str(causes[0]) or "closed connection" in str(causes[0])
        return NO_ANSWER if said_nothing else "the answer is not HTTP"
    if names & {"InvalidURL", "OverflowError", "UnsupportedProtocol", "LocalProtocolError", "ValueError"}:
        return "nobody can connect to such a URL"
    return NO_ANSWER if names & {"ReadError", "WriteError", "EndOfStream"} else type(causes[0]).__name__
