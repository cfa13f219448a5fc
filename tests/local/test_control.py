"""How verbs and the supervisor talk."""

from __future__ import annotations

import asyncio
import re
import socket
import threading
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from typing import Any

import pytest

from controlplane.local import control
from controlplane.local.exits import FAILED, TIMED_OUT, UNAVAILABLE, USAGE, Failure
from controlplane.local.runfile import RunDirectory

Handler = Callable[[dict[str, Any]], Awaitable[dict[str, Any]]]


@pytest.fixture
def directory(tmp_path: Path) -> RunDirectory:
    directory = RunDirectory(tmp_path / "run")
    directory.create()
    return directory


@asynccontextmanager
async def serving(directory: RunDirectory, handle: Handler) -> AsyncIterator[None]:
    server = await control.serve(directory, handle)
    try:
        yield
    finally:
        server.close()


async def ask(directory: RunDirectory, request: dict[str, Any], seconds: float = 10) -> dict[str, Any]:
    """One at a time: whoever asks changes the working directory for a moment, which threads share."""
    return await asyncio.to_thread(control.ask, directory, request, seconds)


async def echo(request: dict[str, Any]) -> dict[str, Any]:
    return {"heard": request}


async def test_a_request_is_answered(directory: RunDirectory) -> None:
    """One line each way, whatever is in them, and again as often as somebody asks."""
    request = {"verb": "start", "only": ["a\nb", "ü"], "wrap": [], "large": "x" * 10_000}

    async with serving(directory, echo):
        answers = [await ask(directory, each) for each in (request, {}, request)]

    assert answers == [{"heard": request}, {"heard": {}}, {"heard": request}]


async def test_only_the_owner_may_ask(directory: RunDirectory) -> None:
    """The socket is for nobody else."""
    async with serving(directory, echo):
        assert directory.control.stat().st_mode & 0o777 == 0o600


@pytest.mark.parametrize("status", [FAILED, USAGE, TIMED_OUT])
async def test_a_failure_reaches_who_asked(directory: RunDirectory, status: int) -> None:
    """With its message and its status, as if it had happened there."""

    async def fails(_request: dict[str, Any]) -> dict[str, Any]:
        raise Failure("no such part\nsays its log", status)

    async with serving(directory, fails):
        with pytest.raises(Failure, match="no such part") as caught:
            await ask(directory, {})

    assert (str(caught.value), caught.value.status) == ("no such part\nsays its log", status)


async def test_a_slow_request_holds_up_no_other(directory: RunDirectory) -> None:
    """Starting a part takes its time; meanwhile somebody may ask how things are."""
    begun, goes_on = asyncio.Event(), asyncio.Event()

    async def handle(request: dict[str, Any]) -> dict[str, Any]:
        if request["verb"] == "start":
            begun.set()
            await goes_on.wait()
        return request

    async with serving(directory, handle):
        slow = asyncio.ensure_future(ask(directory, {"verb": "start"}))
        await begun.wait()
        assert await ask(directory, {"verb": "status"}) == {"verb": "status"}
        assert not slow.done()
        goes_on.set()
        assert await slow == {"verb": "start"}


async def test_the_socket_of_a_dead_supervisor_is_replaced(directory: RunDirectory) -> None:
    """It is still in the directory, and nobody is behind it."""
    with socket.socket(socket.AF_UNIX) as dead:
        dead.bind(str(directory.control))

    async with serving(directory, echo):
        assert await ask(directory, {}) == {"heard": {}}


async def test_a_directory_may_be_deep(tmp_path: Path) -> None:
    """A socket's path may have 107 bytes; this one has more. Where we are is as before."""
    directory = RunDirectory(tmp_path / ("d" * 150) / "run")
    directory.create()
    here = Path.cwd()

    async with serving(directory, echo):
        assert await ask(directory, {}) == {"heard": {}}

    assert Path.cwd() == here


@pytest.mark.parametrize("line", [b"", b"\n", b"{\n", b"nonsense\n", b"\xff\n", b"x" * 200_000])
async def test_what_is_no_request_ends_its_own_connection(directory: RunDirectory, line: bytes) -> None:
    """The supervisor goes on."""
    async with serving(directory, echo):
        reader, writer = await asyncio.open_unix_connection(str(directory.control))
        writer.write(line)
        writer.write_eof()
        answer = await asyncio.wait_for(read_to_end(reader), 5)
        writer.close()

        assert answer in (b"", b'{"heard": {}}\n')
        assert await ask(directory, {"n": 1}) == {"heard": {"n": 1}}


async def read_to_end(reader: asyncio.StreamReader) -> bytes:
    try:
        return await reader.read()
    except ConnectionError:  # it did not read all that was sent
        return b""


async def test_who_asks_may_leave(directory: RunDirectory) -> None:
    """An answer that nobody takes is no error."""
    asked, answered = asyncio.Event(), asyncio.Event()

    async def slow(_request: dict[str, Any]) -> dict[str, Any]:
        asked.set()
        await answered.wait()
        return {"text": "x" * 1_000_000}

    async with serving(directory, slow):
        _, writer = await asyncio.open_unix_connection(str(directory.control))
        writer.write(b"{}\n")
        await asked.wait()
        writer.close()
        await writer.wait_closed()
        answered.set()

        assert len((await ask(directory, {}))["text"]) == 1_000_000


@pytest.mark.parametrize("state", ["no directory", "no socket", "nobody behind it", "a file"])
def test_where_nobody_is_there_to_ask(tmp_path: Path, state: str) -> None:
    """The failure names the directory, and its status says that a part is missing."""
    directory = RunDirectory(tmp_path / "run")
    if state != "no directory":
        directory.create()
    if state == "nobody behind it":
        with socket.socket(socket.AF_UNIX) as dead:
            dead.bind(str(directory.control))
    if state == "a file":
        directory.control.write_text("")

    with pytest.raises(Failure, match=f"^nothing runs in {re.escape(str(directory.path))}$") as caught:
        control.ask(directory, {}, 5)

    assert caught.value.status == UNAVAILABLE


@contextmanager
def supervisor(directory: RunDirectory, answer: bytes | None) -> Iterator[None]:
    """One that says this and hangs up; or, if it is None, nothing."""
    over = threading.Event()
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind(str(directory.control))
        listening.listen()

        def serve() -> None:
            connection, _ = listening.accept()
            with connection:
                connection.recv(65536)
                if answer is None:
                    over.wait(20)
                else:
                    connection.sendall(answer)

        thread = threading.Thread(target=serve)
        thread.start()
        try:
            yield
        finally:
            over.set()
            thread.join()


def test_a_supervisor_that_does_not_answer(directory: RunDirectory) -> None:
    """After the time that was given, with the status for that."""
    with supervisor(directory, None), pytest.raises(Failure, match="does not answer") as caught:
        control.ask(directory, {}, 0.1)

    assert caught.value.status == TIMED_OUT
    assert str(directory.path) in str(caught.value)


def test_a_supervisor_that_ends_while_it_is_asked(directory: RunDirectory) -> None:
    """No answer came: it is told as that, and not as an empty one."""
    with supervisor(directory, b""), pytest.raises(Failure, match="ended meanwhile") as caught:
        control.ask(directory, {}, 5)

    assert caught.value.status == UNAVAILABLE


def test_an_empty_answer_is_one(directory: RunDirectory) -> None:
    """`stop` has nothing to say but that it was heard."""
    with supervisor(directory, b"{}\n"):
        assert control.ask(directory, {"verb": "stop"}, 5) == {}
