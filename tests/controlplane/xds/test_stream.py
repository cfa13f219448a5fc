"""One ADS stream, as scenarios: what the node says, what is current, and what is sent."""

from __future__ import annotations

from dataclasses import dataclass, field

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, precondition, rule

from controlplane.xds.resources import AUTHZ_POLICY, CLUSTER, ENDPOINT, LISTENER, ORDER, ROUTE, short
from controlplane.xds.snapshot import EMPTY, Snapshot
from controlplane.xds.stream import Request, Response, Stream

CDS, EDS, LDS, RDS = CLUSTER, ENDPOINT, LISTENER, ROUTE


def a_snapshot(**numbers: int) -> Snapshot:
    """Resources by type, each with a number that stands for its content: `a_snapshot(cds=1, eds=2)`."""
    types = {"cds": CDS, "eds": EDS, "lds": LDS, "rds": RDS, "policy": AUTHZ_POLICY}
    content = {types[name]: str(number) for name, number in numbers.items()}
    return Snapshot({kind: {name: f"{name}{number}".encode() for name in "ab"} for kind, number in content.items()})


@dataclass
class Node:
    """A node's side of a stream, in the protocol's words."""

    stream: Stream
    accepted: dict[str, str] = field(default_factory=dict)
    last: dict[str, Response] = field(default_factory=dict)
    names: dict[str, frozenset[str]] = field(default_factory=dict)

    def asks(self, kind: str, *names: str, version: str = "") -> list[Response]:
        """The first request of a type, or a change of names."""
        self.names[kind] = frozenset(names)
        nonce = self.last[kind].nonce if kind in self.last else ""
        return self.hears(
            self.stream.on_request(Request(kind, self.accepted.get(kind, version), nonce, self.names[kind]))
        )

    def acks(self, response: Response) -> list[Response]:
        """Accepts a response."""
        self.accepted[response.type_url] = response.version
        return self._answers(response, None)

    def nacks(self, response: Response) -> list[Response]:
        """Rejects a response, and says the version that it still runs."""
        return self._answers(response, "no such thing")

    def is_told(self, snapshot: Snapshot) -> list[Response]:
        """The snapshot changes."""
        return self.hears(self.stream.on_snapshot(snapshot))

    def _answers(self, response: Response, error: str | None) -> list[Response]:
        kind = response.type_url
        request = Request(kind, self.accepted.get(kind, ""), response.nonce, self.names.get(kind, frozenset()), error)
        return self.hears(self.stream.on_request(request))

    def hears(self, responses: list[Response]) -> list[Response]:
        self.last |= {response.type_url: response for response in responses}
        return responses


def kinds(responses: list[Response]) -> list[str]:
    return [response.type_url for response in responses]


def test_a_first_request_is_answered_with_all_there_is() -> None:
    """A wildcard type answers with every resource, its version and a nonce."""
    snapshot = a_snapshot(cds=1)

    (response,) = Node(Stream(snapshot)).asks(CDS)

    assert response == Response(CDS, snapshot.version(CDS), "1", (b"a1", b"b1"))


def test_named_resources_are_answered_as_named() -> None:
    """A type that is asked for by name answers with the named ones, and with nothing to a request without names."""
    node = Node(Stream(a_snapshot(eds=1, rds=1)))

    assert node.asks(RDS) == []
    assert node.asks(EDS, "b")[0].resources == (b"b1",)


def test_an_ack_is_answered_with_nothing() -> None:
    """After an ACK the node is settled, and hears nothing until something changes."""
    node = Node(Stream(a_snapshot(cds=1)))
    (response,) = node.asks(CDS)

    assert node.acks(response) == []
    assert node.is_told(a_snapshot(cds=1)) == []
    watch = node.stream.watches[CDS]
    assert watch.sent == watch.acknowledged == response.version
    assert (watch.rejected, watch.error) == ("", None)


def test_a_change_is_sent_once() -> None:
    """A new version goes out with a new nonce, only for the types that changed."""
    node = Node(Stream(a_snapshot(cds=1, lds=1)))
    for kind in (CDS, LDS):
        node.acks(node.asks(kind)[0])

    (response,) = node.is_told(a_snapshot(cds=2, lds=1))

    assert (response.type_url, response.nonce, response.resources) == (CDS, "3", (b"a2", b"b2"))
    assert node.is_told(a_snapshot(cds=2, lds=1)) == []


def test_a_rejected_version_is_held_until_the_snapshot_changes() -> None:
    """A NACK is answered with nothing, however often it comes; the next version is sent again."""
    node = Node(Stream(a_snapshot(cds=1)))
    node.acks(node.asks(CDS)[0])
    (bad,) = node.is_told(a_snapshot(cds=2))

    assert node.nacks(bad) == []
    assert node.nacks(bad) == []
    assert node.is_told(a_snapshot(cds=2, lds=1)) == []
    watch = node.stream.watches[CDS]
    assert (watch.rejected, watch.error) == (bad.version, "no such thing")
    assert watch.acknowledged == a_snapshot(cds=1).version(CDS)
    assert kinds(node.is_told(a_snapshot(cds=3))) == [CDS]


def test_rolling_back_after_a_nack_is_sent_and_clears_it() -> None:
    """The version before the rejected one is sent, although the node says that it runs it; its ACK ends the matter."""
    node = Node(Stream(a_snapshot(cds=1)))
    node.acks(node.asks(CDS)[0])
    node.nacks(node.is_told(a_snapshot(cds=2))[0])

    (response,) = node.is_told(a_snapshot(cds=1))
    node.acks(response)

    assert response.version == a_snapshot(cds=1).version(CDS)
    assert (node.stream.watches[CDS].rejected, node.stream.watches[CDS].error) == ("", None)


def test_what_a_node_asks_after_a_nack_is_no_ack() -> None:
    """A rejected version stays rejected while the node asks on with the same nonce, and is not sent for more names."""
    node = Node(Stream(a_snapshot(eds=1)))
    node.acks(node.asks(EDS, "a")[0])
    (bad,) = node.is_told(a_snapshot(eds=2))
    node.nacks(bad)

    assert node.asks(EDS, "a", "b") == []
    assert node.stream.watches[EDS].rejected == bad.version
    assert node.stream.watches[EDS].acknowledged == a_snapshot(eds=1).version(EDS)
    assert node.is_told(a_snapshot(eds=3))[0].resources == (b"a3", b"b3")


def test_a_request_with_a_stale_nonce_is_ignored() -> None:
    """An ACK or NACK of what was overtaken says nothing of what is newer."""
    node = Node(Stream(a_snapshot(cds=1)))
    (first,) = node.asks(CDS)
    (second,) = node.is_told(a_snapshot(cds=2))

    assert node.acks(first) == []
    assert node.nacks(first) == []
    assert node.stream.watches[CDS].acknowledged == ""
    assert node.stream.watches[CDS].rejected == ""
    node.acks(second)
    assert node.stream.watches[CDS].acknowledged == second.version


def test_names_that_are_added_are_answered() -> None:
    """A node that wants more hears all that it wants, under the same version; one that wants less hears nothing."""
    node = Node(Stream(a_snapshot(eds=1)))
    node.acks(node.asks(EDS, "a")[0])

    (response,) = node.asks(EDS, "a", "b")
    node.acks(response)

    assert response.resources == (b"a1", b"b1")
    assert node.asks(EDS, "b") == []


def test_an_ack_may_add_names() -> None:
    """What an ACK asks for beyond is answered at once."""
    node = Node(Stream(a_snapshot(eds=1)))
    (response,) = node.asks(EDS, "a")
    node.names[EDS] = frozenset("ab")

    assert node.acks(response)[0].resources == (b"a1", b"b1")


def test_asking_again_is_answered_again() -> None:
    """Envoy keeps a changed cluster aside until it hears its endpoints, even those that it has: once a request."""
    node = Node(Stream(a_snapshot(cds=1, eds=1)))
    node.acks(node.asks(CDS)[0])
    node.acks(node.asks(EDS, "a")[0])
    node.acks(node.is_told(a_snapshot(cds=2, eds=1))[0])

    (response,) = node.asks(EDS, "a")

    assert response.version == a_snapshot(eds=1).version(EDS)
    assert node.acks(response) == []
    assert kinds(node.asks(EDS, "a")) == [EDS]


def test_a_node_that_reconnects_is_spared_what_it_has() -> None:
    """A first request with the current version counts as acknowledged; it is answered when it is asked again."""
    snapshot = a_snapshot(cds=1, eds=1)
    node = Node(Stream(snapshot))

    assert node.asks(CDS, version=snapshot.version(CDS)) == []
    assert node.stream.watches[CDS].acknowledged == snapshot.version(CDS)
    assert node.asks(EDS, "a", version=snapshot.version(EDS)) == []
    node.accepted[EDS] = snapshot.version(EDS)
    assert kinds(node.asks(EDS, "a")) == [EDS]
    assert kinds(node.is_told(a_snapshot(cds=2, eds=1))) == [CDS]


def test_a_node_that_reconnects_with_another_version_hears_the_current_one() -> None:
    """What it ran is not what it is to run."""
    node = Node(Stream(a_snapshot(cds=2)))

    assert kinds(node.asks(CDS, version=a_snapshot(cds=1).version(CDS))) == [CDS]


def test_a_change_is_sent_in_the_order_of_reference() -> None:
    """Policies, clusters, endpoints, listeners, routes: what is referred to comes first, however it was asked for."""
    node = Node(Stream(EMPTY))
    for kind in (RDS, LDS, EDS, CDS, AUTHZ_POLICY):
        node.asks(kind, "a")

    assert kinds(node.is_told(a_snapshot(rds=1, lds=1, eds=1, cds=1, policy=1))) == [AUTHZ_POLICY, CDS, EDS, LDS, RDS]


def test_nothing_is_told_before_there_is_something() -> None:
    """An empty snapshot is no instruction to drop everything: the node keeps what it has."""
    node = Node(Stream(EMPTY))

    assert [node.asks(kind, "a") for kind in ORDER] == [[]] * len(ORDER)
    assert kinds(node.is_told(a_snapshot(cds=1))) == [CDS]
    assert node.is_told(EMPTY) == []


def test_a_type_that_nobody_asked_for_is_not_sent() -> None:
    """Only what is watched is sent."""
    node = Node(Stream(a_snapshot(cds=1)))
    node.acks(node.asks(CDS)[0])

    assert node.is_told(a_snapshot(cds=1, lds=2)) == []


def test_a_type_that_nobody_knows_is_answered_with_nothing() -> None:
    """A type URL from another world neither answers nor disturbs."""
    node = Node(Stream(a_snapshot(cds=1)))

    assert node.asks("type.googleapis.com/other.Thing", "a") == []
    assert kinds(node.asks(CDS)) == [CDS]
    assert node.is_told(a_snapshot(cds=1)) == []


KINDS = st.sampled_from([CDS, EDS, RDS])
NAMES = st.frozensets(st.sampled_from("ab"))


class AnyOrder(RuleBasedStateMachine):
    """Requests and snapshots in any order: responses wait on the wire, and the node may answer late."""

    def __init__(self) -> None:
        super().__init__()
        self.snapshot = EMPTY
        self.node = Node(Stream(EMPTY))
        self.wire: list[Response] = []
        self.nonces: set[str] = set()
        self.rejected: set[tuple[str, str]] = set()
        self.subscribed: set[str] = set()

    def sent(self, responses: list[Response]) -> None:
        for response in responses:
            assert response.nonce not in self.nonces
            assert (response.type_url, response.version) not in self.rejected
            assert response.version == self.snapshot.version(response.type_url)
            assert response.type_url in self.subscribed
            self.nonces.add(response.nonce)
        self.wire += responses

    @rule(cds=st.integers(1, 3), eds=st.integers(1, 3), rds=st.integers(1, 3))
    def publish(self, cds: int, eds: int, rds: int) -> None:
        before, self.snapshot = self.snapshot, a_snapshot(cds=cds, eds=eds, rds=rds)
        self.rejected = {
            (kind, version)
            for kind, version in self.rejected
            if before.version(kind) == self.snapshot.version(kind) == version
        }
        responses = self.node.stream.on_snapshot(self.snapshot)
        assert [ORDER.index(kind) for kind in kinds(responses)] == sorted(map(ORDER.index, kinds(responses)))
        self.sent(responses)

    @rule(kind=KINDS, names=NAMES)
    def ask(self, kind: str, names: frozenset[str]) -> None:
        self.subscribed.add(kind)
        self.node.names[kind] = names
        nonce = self.node.last[kind].nonce if kind in self.node.last else ""
        self.sent(self.node.stream.on_request(Request(kind, self.node.accepted.get(kind, ""), nonce, names)))

    @precondition(lambda self: self.wire)
    @rule(fine=st.booleans())
    def hear(self, fine: bool) -> None:
        response = self.wire.pop(0)
        self.node.last[response.type_url] = response
        if not fine and self.node.stream.watches[response.type_url].nonce == response.nonce:
            self.rejected.add((response.type_url, response.version))
        self.answer(response, fine)

    def answer(self, response: Response, fine: bool) -> None:
        kind = response.type_url
        if fine:
            self.node.accepted[kind] = response.version
        error = None if fine else "no"
        request = Request(kind, self.node.accepted.get(kind, ""), response.nonce, self.node.names[kind], error)
        self.sent(self.node.stream.on_request(request))

    def teardown(self) -> None:
        """A node that accepts everything from here on ends with what is current, after finitely many answers."""
        answers = 0
        while self.wire:
            answers += 1
            assert answers < 50, "the two never come to rest"
            response = self.wire.pop(0)
            self.node.last[response.type_url] = response
            self.answer(response, fine=True)
        for kind, watch in self.node.stream.watches.items():
            current = self.snapshot.version(kind)
            wants_something = watch.names or kind == CDS
            if current and wants_something and (kind, current) not in self.rejected:
                assert watch.acknowledged == watch.sent == current, short(kind)


TestAnyOrder = AnyOrder.TestCase
TestAnyOrder.settings = settings(max_examples=60, stateful_step_count=30, deadline=None)


@pytest.mark.parametrize("kind", ORDER)
def test_every_type_is_watched_alike(kind: str) -> None:
    """Ask, answer, ACK, silence: for Envoy's types and for the services' policies."""
    node = Node(Stream(Snapshot({kind: {"a": b"1"}})))
    (response,) = node.asks(kind, "a")

    assert node.acks(response) == []
    assert node.stream.watches[kind].acknowledged == response.version
