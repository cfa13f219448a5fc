"""Ports for what tests start, and for what they want to find closed."""

from __future__ import annotations

import socket

_reservations: list[socket.socket] = []


def free_port() -> int:
    """A port where something may listen. The kernel gives it to nobody else soon, but it is not reserved."""
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port: int = probe.getsockname()[1]
        return port


def closed_port() -> int:
    """A port where nobody listens, for as long as this process lives: it is bound, so that nobody else is given it."""
    reservation = socket.socket()
    reservation.bind(("127.0.0.1", 0))
    _reservations.append(reservation)
    port: int = reservation.getsockname()[1]
    return port


def is_reachable(address: str) -> bool:
    """Whether HOST:PORT takes connections."""
    host, _, port = address.rpartition(":")
    try:
        socket.create_connection((host, int(port)), timeout=1).close()
    except OSError:
        return False
    return True
