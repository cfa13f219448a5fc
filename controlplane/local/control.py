"""How verbs talk to the supervisor of a directory: a unix socket, one JSON line each way."""

from __future__ import annotations

import asyncio
import contextlib
import json
import socket
from collections.abc import Awaitable, Callable
from typing import Any

from controlplane.local.exits import TIMED_OUT, UNAVAILABLE, Failure
from controlplane.local.runfile import RunDirectory

Handler = Callable[[dict[str, Any]], Awaitable[dict[str, Any]]]


async def serve(directory: RunDirectory, handle: Handler) -> asyncio.Server:
    """Answer requests until the server is closed. A Failure goes back as `error` and `status`."""

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            request = json.loads(await reader.readline() or "{}")
            try:
                reply = await handle(request)
            except Failure as failure:
                reply = {"error": str(failure), "status": failure.status}
            writer.write(json.dumps(reply).encode() + b"\n")
            await writer.drain()
        except (ConnectionError, ValueError):
            pass  # whoever asked is gone, or is none of our verbs
        finally:
            writer.close()

    directory.control.unlink(missing_ok=True)  # of a supervisor that was killed; ours is the lock
    sock = socket.socket(socket.AF_UNIX)
    with contextlib.chdir(directory.path):  # a socket's path may have 107 bytes, a directory's more
        sock.bind(directory.control.name)
    directory.control.chmod(0o600)
    return await asyncio.start_unix_server(answer, sock=sock)


def ask(directory: RunDirectory, request: dict[str, Any], timeout_seconds: float) -> dict[str, Any]:
    """Ask the supervisor. Raises Failure with its refusal, or where there is none to ask."""
    with socket.socket(socket.AF_UNIX) as sock:
        sock.settimeout(timeout_seconds)
        try:
            with contextlib.chdir(directory.path):
                sock.connect(directory.control.name)
            sock.sendall(json.dumps(request).encode() + b"\n")
            line = sock.makefile("rb").readline()
        except TimeoutError as error:
            raise Failure(f"the supervisor of {directory.path} does not answer", TIMED_OUT) from error
        except OSError as error:
            raise Failure(f"nothing runs in {directory.path}", UNAVAILABLE) from error
    if not line:
        raise Failure(f"the supervisor of {directory.path} ended meanwhile", UNAVAILABLE)
    reply: dict[str, Any] = json.loads(line)
    if "error" in reply:
        raise Failure(reply["error"], reply["status"])
    return reply
