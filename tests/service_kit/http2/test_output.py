"""What waits for the client's windows: in which order it goes, and that nothing is kept of what is over."""

from __future__ import annotations

import asyncio

import pytest

from service_kit.http2.call import Call
from service_kit.http2.flow import widened
from service_kit.http2.frames import DATA, DEFAULT_WINDOW, FLOW_CONTROL_ERROR, ConnectionFailure
from service_kit.http2.output import CALLS_A_TURN, Output
from tests.support.waiting import next_turn, until


class Sender:
    """An Output without a transport, whose connection's window is used up."""

    def __init__(self) -> None:
        self.finished: list[int] = []
        self.blocked = 0
        self.output = Output(asyncio.get_running_loop(), self._finished, self._blocked)
        self.output.write_message(Call(1, "/"), bytes(DEFAULT_WINDOW - 5))
        self.output.pending.clear()

    def _finished(self, call: Call) -> None:
        self.finished.append(call.stream)

    def _blocked(self) -> None:
        self.blocked += 1

    def respond(self, stream: int, message: bytes = b"x") -> Call:
        """A response that has to wait."""
        call = Call(stream, "/")
        self.output.respond(call, message)
        return call

    def sizes(self) -> list[int]:
        """Of the DATA frames that were sent."""
        return [len(each) - 9 for each in self.output.pending if each[3] == DATA]


async def test_who_waits_first_is_sent_first() -> None:
    """An update lets through as many bytes as it says."""
    sender = Sender()
    for stream in (3, 5, 7):
        sender.respond(stream)
    assert sender.blocked == 3
    sender.output.widen(8)

    assert sender.sizes() == [6, 2]
    assert sender.finished == [3]


async def test_a_call_that_is_over_does_not_wait_any_more() -> None:
    """However many calls are begun and reset while the window is closed, nothing is kept of them."""
    sender = Sender()
    for stream in range(3, 1_000, 2):
        sender.output.forget(sender.respond(stream))
    kept = sender.respond(1_001)

    assert list(sender.output._queue.values()) == [kept]
    sender.output.widen(100)
    assert sender.finished == [1_001]


async def test_thousands_that_wait_are_sent_over_several_turns() -> None:
    """One update that opens the window for all of them does not keep the loop for itself."""
    sender = Sender()
    streams = list(range(3, 3 + 2 * 3 * CALLS_A_TURN, 2))
    for stream in streams:
        sender.respond(stream)
    sender.output.widen(1 << 20)
    assert len(sender.finished) == CALLS_A_TURN

    await until(lambda: sender.finished == streams, every=0)


async def test_settings_open_the_windows_of_all_streams() -> None:
    """Also of thousands that wait for their own window, over several turns."""
    output_of: list[int] = []
    output = Output(asyncio.get_running_loop(), lambda call: output_of.append(call.stream), lambda: None)
    output.widen(1 << 20)
    output.resize_streams(0, [])
    calls = [Call(stream, "/") for stream in range(1, 2 * 2 * CALLS_A_TURN, 2)]
    for call in calls:
        output.respond(call, b"x")
    assert output_of == []
    output.resize_streams(100, calls)

    await until(lambda: output_of == [call.stream for call in calls], every=0)


async def test_a_window_has_an_end() -> None:
    """More than 2^31-1 ends the connection."""
    sender = Sender()
    with pytest.raises(ConnectionFailure) as failure:
        sender.output.widen(1 << 31)
    assert failure.value.code == FLOW_CONTROL_ERROR
    assert widened(0, 1 << 31) is None


async def test_a_writer_waits_until_the_client_reads() -> None:
    """Both for its own windows, and for the transport."""
    sender = Sender()
    call = Call(3, "/")
    sender.output.write_message(call, b"x")
    waiting = asyncio.ensure_future(sender.output.drain(call))
    sender.output.pause()
    await next_turn()
    sender.output.widen(100)
    await next_turn()
    assert not waiting.done()
    sender.output.resume()
    await asyncio.wait_for(waiting, 5)
