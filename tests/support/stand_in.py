"""A process that stands for any part of a gateway: it answers at its address, and tells a folder what is asked of it.

`python -m tests.support.stand_in NAME HOST:PORT FOLDER`. FOLDER/said gets a line for each POST, for each look at its
statistics, and one when SIGTERM comes. FOLDER/active, if it is there, holds how many requests are under way.
"""

from __future__ import annotations

import signal
import socketserver
import sys
from pathlib import Path


def main(name: str, address: str, folder: Path) -> None:
    def say(what: str) -> None:
        with (folder / "said").open("a") as file:
            file.write(f"{name}: {what}\n")

    class Handler(socketserver.StreamRequestHandler):
        def handle(self) -> None:
            line = self.rfile.readline().decode()
            if line == "PING\r\n":
                self.wfile.write(b"+PONG\r\n")
                return
            if line.startswith("POST "):
                say(line.split()[1])
            if line.startswith("GET /stats"):
                say("/stats")
            active = folder / "active"
            count = active.read_text() if active.exists() else "0"
            body = f"http.admin.downstream_rq_active: 1\nhttp.ingress.downstream_rq_active: {count}\n".encode()
            self.wfile.write(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%s" % (len(body), body))

    def stop(*_: object) -> None:
        say("SIGTERM")
        sys.exit(0)

    signal.signal(signal.SIGTERM, stop)
    host, _, port = address.rpartition(":")
    socketserver.ThreadingTCPServer.allow_reuse_address = True
    with socketserver.ThreadingTCPServer((host, int(port)), Handler) as server:
        server.daemon_threads = True
        sys.stderr.write(f"{name} listens\n")
        server.serve_forever(poll_interval=0.02)


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], Path(sys.argv[3]))
