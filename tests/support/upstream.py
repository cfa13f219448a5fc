"""A service that counts its connections and does with each request what the request's own query says.

`?key=K&acts=503,close,200` tells what becomes of the first, second and third request that names K; the last act holds
for all further ones. An act is a status, `close` (no answer), `part` (half an answer, then closed) or `hang`. `delay`
is how many seconds pass before it. `/health` answers `health_status`.
"""

from __future__ import annotations

import asyncio
import contextlib
import threading
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from urllib.parse import parse_qs, urlsplit

HALF_AN_ANSWER = b"HTTP/1.1 200 OK\r\ncontent-length: 100\r\n\r\nonly this"


@dataclass(frozen=True)
class Seen:
    """One request as it arrived."""

    key: str
    method: str
    body: bytes


class Upstream:
    """A server in a thread of its own. A context manager."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.port = 0
        self.health_status = 200
        self.fails = False
        """Whether every request is answered with 500, whatever it asks for; health is not."""
        self.health_checks: list[dict[str, str]] = []
        """The headers of each request for /health."""
        self.open = 0
        self.peak = 0
        """Connections now, and the most there ever were at once."""
        self.seen: list[Seen] = []
        self._numbers: Counter[str] = Counter()
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def __enter__(self) -> Upstream:
        self._thread.start()
        starting = asyncio.start_server(self._serve, "127.0.0.1", 0, backlog=1024)
        server = asyncio.run_coroutine_threadsafe(starting, self._loop).result(5)
        self.port = server.sockets[0].getsockname()[1]
        return self

    def __exit__(self, *_: object) -> None:
        asyncio.run_coroutine_threadsafe(self._stop(), self._loop).result(5)
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(5)
        self._loop.close()

    @contextlib.contextmanager
    def failing(self) -> Iterator[None]:
        """For as long as this lasts, `fails`."""
        self.fails = True
        try:
            yield
        finally:
            self.fails = False

    @contextlib.contextmanager
    def ill(self, status: int = 503) -> Iterator[None]:
        """For as long as this lasts, /health answers `status`."""
        self.health_status = status
        try:
            yield
        finally:
            self.health_status = 200

    def tries(self, key: str) -> list[Seen]:
        """The requests that named this key."""
        return [seen for seen in self.seen if seen.key == key]

    async def _stop(self) -> None:
        tasks = asyncio.all_tasks() - {asyncio.current_task()}
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.open += 1
        self.peak = max(self.peak, self.open)
        try:
            with contextlib.suppress(ConnectionError, asyncio.IncompleteReadError, asyncio.CancelledError):
                while await self._answer(reader, writer):
                    pass
        finally:
            self.open -= 1
            writer.close()

    async def _answer(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bool:
        """One request; False where the connection ends with it."""
        lines = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").split("\r\n")
        method, target, _ = lines[0].split(" ")
        headers = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines[1:])}
        body = await reader.readexactly(int(headers.get("content-length", 0)))
        if target == "/health":
            self.health_checks.append(headers)
            return await self._say(writer, str(self.health_status))
        query = {name: values[0] for name, values in parse_qs(urlsplit(target).query).items()}
        act = self._act(Seen(query.get("key", ""), method, body), query.get("acts", "200"))
        await asyncio.sleep(float(query.get("delay", 0)))
        if act == "hang":
            await reader.read()
            return False
        return await self._say(writer, act, head=method == "HEAD")

    def _act(self, seen: Seen, acts: str) -> str:
        self.seen.append(seen)
        listed = ["500"] if self.fails else acts.split(",")
        number = self._numbers[seen.key]
        self._numbers[seen.key] += 1
        return listed[min(number, len(listed) - 1)]

    async def _say(self, writer: asyncio.StreamWriter, act: str, *, head: bool = False) -> bool:
        if act in ("close", "part"):
            writer.write(HALF_AN_ANSWER if act == "part" else b"")
            await writer.drain()
            return False
        name = self.name.encode()
        start = f"HTTP/1.1 {act} Said\r\ncontent-length: {len(name)}\r\n\r\n".encode()
        writer.write(start + (b"" if head else name))
        await writer.drain()
        return True
