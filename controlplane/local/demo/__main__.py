"""Run one demo upstream: `python -m controlplane.local.demo NAME HOST:PORT`."""

from __future__ import annotations

import signal
import socket
import sys

from controlplane.local.demo.echo import Echo
from controlplane.local.demo.loop import Server


def main(arguments: list[str]) -> int:
    if len(arguments) != 2 or not arguments[1].rpartition(":")[2].isdigit():
        sys.stderr.write("usage: python -m controlplane.local.demo NAME HOST:PORT\n")
        return 64
    name, address = arguments
    host, _, port = address.rpartition(":")
    server = Server(socket.create_server((host, int(port)), backlog=1024), Echo(name))
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: sys.exit(0))
    sys.stderr.write(f"{name} listens on {address}\n")
    return server.run()


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
