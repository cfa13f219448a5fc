"""Ports that are reserved, and ports that others have."""

from __future__ import annotations

import os
import socket
import sys

import pytest

from controlplane.local.exits import Failure
from controlplane.local.ports import Ports, holder

linux = pytest.mark.skipif(sys.platform != "linux", reason="only Linux lets a part bind beside a reservation")


def test_names_get_different_ports() -> None:
    """Every name has its own port."""
    ports = Ports()

    numbers = ports.reserve([f"p{i}" for i in range(50)], {})

    assert len(set(numbers.values())) == 50
    ports.close()


@linux
def test_a_reserved_port_is_refused_to_others_and_to_clients_but_not_to_its_part() -> None:
    """Nobody else can be given the port, a client is refused at once, and the part can listen again and again."""
    ports = Ports()
    address = ("127.0.0.1", ports.reserve(["p"], {})["p"])
    with pytest.raises(OSError, match="in use"), socket.socket() as stranger:
        stranger.bind(address)

    for _ in range(2):
        with pytest.raises(ConnectionRefusedError):
            socket.create_connection(address)
        with socket.create_server(address), socket.create_connection(address):
            pass
    ports.close()


@linux
def test_a_port_in_use_names_its_holder() -> None:
    """The message says which process has the port."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        with pytest.raises(Failure, match=rf"port {port} is in use by .*python.* \(pid {os.getpid()}\)"):
            Ports().reserve(["p"], {"p": ("127.0.0.1", port)})
    assert holder(port) is None


def test_an_address_that_is_not_ours_is_explained() -> None:
    """Another machine's address cannot be listened on, and the message says so."""
    with pytest.raises(Failure, match=r"cannot listen on 192\.0\.2\.1:1234"):
        Ports().reserve(["p"], {"p": ("192.0.2.1", 1234)})
