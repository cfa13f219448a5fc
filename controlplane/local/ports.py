"""Ports for the parts: found, held until the parts are gone for good, and explained when somebody else has them."""

from __future__ import annotations

import contextlib
import errno
import random
import re
import socket
import sys
from collections.abc import Iterable, Mapping
from pathlib import Path

from controlplane.local.exits import Failure

LOOPBACK = "127.0.0.1"
_CHOICE = range(20_000, 32_000)  # below what Linux and macOS hand out to outgoing connections


class Ports:
    """Reserved ports by name.

    Each is bound but not listened on: nobody else can be given it, a client is refused, and on Linux our own part may
    still listen there. So a part that died comes back at its old address, whatever happened in between.
    """

    def __init__(self) -> None:
        self._sockets: dict[str, socket.socket] = {}

    def reserve(self, names: Iterable[str], fixed: Mapping[str, tuple[str, int]]) -> dict[str, int]:
        """A port for every name, the `fixed` ones as given. Raises Failure that names who has a fixed one."""
        for name in names:
            self._sockets[name] = _bind(*fixed[name]) if name in fixed else _bind_any()
        return {name: sock.getsockname()[1] for name, sock in self._sockets.items()}

    def hand_over(self) -> None:
        """Let the parts bind. Linux allows it beside a socket that does not listen; elsewhere ours has to go."""
        if sys.platform != "linux":
            self.close()

    def close(self) -> None:
        for sock in self._sockets.values():
            sock.close()
        self._sockets.clear()


def _bind(host: str, port: int) -> socket.socket:
    sock = _socket(host)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # a port in TIME_WAIT is free
    try:
        sock.bind((host, port))
    except OSError as error:
        sock.close()
        raise Failure(_explain(host, port, error)) from error
    return sock


def _bind_any() -> socket.socket:
    for port in random.sample(_CHOICE, 200):
        sock = _socket(LOOPBACK)
        try:
            sock.bind((LOOPBACK, port))
        except OSError:
            sock.close()
            continue
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        return sock
    raise Failure(f"no free port between {_CHOICE.start} and {_CHOICE.stop}")


def _socket(host: str) -> socket.socket:
    return socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET)


def _explain(host: str, port: int, error: OSError) -> str:
    if error.errno == errno.EADDRINUSE:
        return f"port {port} is in use by {holder(port) or 'another process'}; choose another one with --port"
    return f"cannot listen on {host}:{port}: {error.strerror}"


def holder(port: int, proc: Path = Path("/proc")) -> str | None:
    """The process that listens on `port`, as `COMMAND (pid N)`; None where the system does not tell."""
    inodes = {inode for table in ("tcp", "tcp6") for inode in _listening(proc / "net" / table, port)}
    if not inodes:
        return None
    for process in proc.iterdir():
        if process.name.isdigit() and inodes & set(_socket_inodes(process)):
            return f"{_command(process)} (pid {process.name})"
    return None


def _listening(table: Path, port: int) -> Iterable[str]:
    """The inodes of sockets in state LISTEN (0A) on `port`: fields of /proc/net/tcp, see proc_net_tcp.txt."""
    try:
        lines = table.read_text().splitlines()[1:]
    except OSError:
        return
    for line in lines:
        fields = line.split()
        if fields[3] == "0A" and int(fields[1].rpartition(":")[2], 16) == port:
            yield fields[9]


def _socket_inodes(process: Path) -> Iterable[str]:
    try:
        entries = list((process / "fd").iterdir())
    except OSError:
        return  # gone meanwhile, or another user's
    for entry in entries:
        with contextlib.suppress(OSError):  # closed meanwhile
            match = re.fullmatch(r"socket:\[(\d+)\]", str(entry.readlink()))
            if match:
                yield match.group(1)


def _command(process: Path) -> str:
    words = (process / "cmdline").read_bytes().split(b"\0")
    return b" ".join(words).decode(errors="replace").strip()[:120]
