"""The open-loop generator tells the truth: nobody's wait is left out."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from itertools import pairwise

import pytest

from tests.load.openloop import DRAIN_SECONDS, Lane, Seen, answer_length, request, run, schedule

ANSWER = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"
REFUSAL = b"HTTP/1.1 429 Too Many Requests\r\ncontent-length: 0\r\n\r\n"


@contextmanager
def a_server(answer: Callable[[int], bytes | None]) -> Iterator[int]:
    """A server on a free port that gives each connection's requests to `answer` by number; None hangs up."""
    with socket.create_server(("127.0.0.1", 0)) as listening:
        counter = iter(range(1_000_000))

        def serve(client: socket.socket) -> None:
            with client:
                while client.recv(65536):
                    said = answer(next(counter))
                    if said is None:
                        return
                    client.sendall(said)

        def accept() -> None:
            while True:
                try:
                    client, _ = listening.accept()
                except OSError:
                    return
                threading.Thread(target=serve, args=(client,), daemon=True).start()

        threading.Thread(target=accept, daemon=True).start()
        yield listening.getsockname()[1]
        listening.shutdown(socket.SHUT_RDWR)


def a_lane(per_second: float, name: str = "lane") -> Lane:
    return Lane(name, [request("test", "/")], per_second)


def test_a_stall_is_seen_by_all_who_would_have_come() -> None:
    """One answer takes 0.3 s; with one connection the 30 requests that were due meanwhile waited too."""

    def stall_once(number: int) -> bytes:
        if number == 10:
            time.sleep(0.3)
        return ANSWER

    with a_server(stall_once) as port:
        seen = run(port, [a_lane(100)], seconds=1, connections=1)["lane"]

    waited = [latency for latency in seen.latencies if latency > 20]
    assert len(seen.latencies) == 100
    assert len(waited) >= 25, "a closed loop would have seen one"
    assert max(waited) >= 300


def test_every_lane_has_its_own_figures() -> None:
    """Refusals are counted by status, for the lane that was refused."""
    with a_server(lambda number: REFUSAL if number % 3 == 2 else ANSWER) as port:
        seen = run(port, [a_lane(200, "many"), a_lane(100, "few")], seconds=0.3, connections=1)

    assert {name: len(lane.latencies) for name, lane in seen.items()} == {"many": 60, "few": 30}
    assert sum(lane.summary()["refused"] for lane in seen.values()) == 30
    assert all(lane.summary()["errors"] == 0 for lane in seen.values())


def test_a_connection_that_breaks_is_an_error_and_is_replaced() -> None:
    """The request it carried is lost; those after it are served."""
    with a_server(lambda number: None if number == 5 else ANSWER) as port:
        summary = run(port, [a_lane(100)], seconds=0.3, connections=1)["lane"].summary()

    assert (summary["requests"], summary["errors"]) == (30, 1)
    assert summary["max"] == 1000 * DRAIN_SECONDS, "what never came is as late as we waited"


def test_what_was_not_answered_counts_as_late() -> None:
    """Percentiles are taken over all that were due, not over those that came."""
    seen = Seen(latencies=[1.0] * 90, statuses={200: 90}, unanswered=10)

    summary = seen.summary()

    assert (summary["p50"], summary["p95"], summary["errors"]) == (1.0, 1000 * DRAIN_SECONDS, 10)


def test_schedule_is_even_and_lanes_do_not_coincide() -> None:
    """Each lane keeps its own pace; no two requests are due at once."""
    due = schedule([a_lane(4, "slow"), a_lane(8, "fast")], seconds=1)

    slow = [moment for moment, lane, _ in due if lane == 0]
    assert [round(later - earlier, 6) for earlier, later in pairwise(slow)] == [0.25] * 3
    assert len({moment for moment, _, _ in due}) == len(due) == 12
    assert due == sorted(due)


@pytest.mark.parametrize(
    ("data", "length"),
    [(ANSWER, len(ANSWER)), (ANSWER[:-2], len(ANSWER)), (ANSWER[:20], None), (REFUSAL, len(REFUSAL))],
)
def test_answer_length(data: bytes, length: int | None) -> None:
    """Known as soon as the head is whole, however the header is written."""
    assert answer_length(data) == length


def test_an_answer_without_length_is_not_guessed() -> None:
    """This generator does not read chunked bodies, and says so."""
    with pytest.raises(ValueError, match="without Content-Length"):
        answer_length(b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n")
