"""How many connections a server has, and which one makes room for another."""

from __future__ import annotations

from dataclasses import dataclass

from service_kit.http2.connections import LOOKS, Connections, allow_files
from service_kit.http2.frames import DATA, END_STREAM, GOAWAY, HEADERS, NO_ERROR, frame
from tests.service_kit.http2.conftest import CALL, Counted
from tests.support.http2_peer import Peer, connected, message


@dataclass(eq=False)
class One:
    """A connection that is used or idle."""

    is_used: bool = False
    is_gone: bool = False

    def idle_seconds(self) -> float:
        """For long, or not at all."""
        return 0.0 if self.is_used else 60.0

    def let_go(self) -> None:
        """Remember it."""
        self.is_gone = True


def test_an_idle_one_makes_room() -> None:
    """The oldest that is not in use goes, whoever came first."""
    connections = Connections[One](3)
    ones = [One(is_used=True), One(), One(), One()]
    for one in ones:
        connections.add(one)

    assert [one.is_gone for one in ones] == [False, True, False, False]
    assert set(connections) == {ones[0], ones[2], ones[3]}


def test_a_new_one_goes_where_all_are_in_use() -> None:
    """Looking for an idle one ends: nobody who works is let go for somebody new."""
    connections = Connections[One](LOOKS + 10)
    ones = [One(is_used=True) for _ in range(LOOKS + 11)]
    for one in ones:
        connections.add(one)

    assert [one.is_gone for one in ones] == [False] * (LOOKS + 10) + [True]


def test_one_that_is_closed_is_forgotten() -> None:
    """Once or twice: one that was let go closes later."""
    connections, one = Connections[One](3), One()
    connections.add(one)
    connections.discard(one)
    connections.discard(one)

    assert len(connections) == 0


def test_there_are_fewer_connections_than_files() -> None:
    """The store and the control plane must be reachable whoever connects."""
    import resource

    limits = resource.getrlimit(resource.RLIMIT_NOFILE)
    try:
        assert allow_files() < resource.getrlimit(resource.RLIMIT_NOFILE)[0]
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, limits)


async def test_idle_connections_lock_nobody_out(counted: Counted) -> None:
    """Idle clients are told to come again, so that a new one gets in, and one that calls stays."""
    counted.server.connections.most = 4
    counted.server.connections.may_idle = 0.02
    async with connected(counted.port) as busy:
        idle = [await Peer.greeted(counted.port) for _ in range(3)]
        new = None
        for stream in range(1, 2_000, 2):
            busy.open(stream, CALL)
            busy.send(frame(DATA, END_STREAM, stream, message(b"fine")))
            await busy.until(HEADERS, stream=stream, flags=END_STREAM)
            if new := await _let_in(counted.port):
                break
        assert len(counted.server.connections) == 4
        last = (await idle[0].rest())[-1]
        for peer in (*idle, new):
            assert peer is not None
            peer.close()

    assert (last.kind, last.code) == (GOAWAY, NO_ERROR)


async def _let_in(port: int) -> Peer | None:
    try:
        return await Peer.greeted(port)
    except (AssertionError, ConnectionError):  # nobody was idle for long enough yet
        return None
