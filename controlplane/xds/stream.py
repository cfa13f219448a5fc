"""One ADS stream, state of the world: requests and snapshots in, responses out. No gRPC and no I/O.

The rules are those of the xDS transport protocol (https://www.envoyproxy.io/docs/envoy/latest/api-docs/xds_protocol):
a response is matched by its nonce, a request with a stale nonce is ignored, and a rejected version is not sent again.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from controlplane.xds.resources import ORDER, WILDCARD
from controlplane.xds.snapshot import EMPTY, Snapshot


@dataclass(frozen=True)
class Request:
    """What of a DiscoveryRequest decides. `error` is None unless this is a NACK."""

    type_url: str
    version: str = ""
    nonce: str = ""
    names: frozenset[str] = frozenset()
    error: str | None = None


@dataclass(frozen=True)
class Response:
    """What of a DiscoveryResponse we decide."""

    type_url: str
    version: str
    nonce: str
    resources: tuple[bytes, ...]


@dataclass
class Watch:
    """What a node has subscribed to in one type, and how far it has come."""

    names: frozenset[str] = frozenset()
    sent: str = ""
    nonce: str = ""
    answered: bool = False
    """Whether the node acknowledged or rejected `nonce`; a later request with it asks, and judges nothing."""
    acknowledged: str = ""
    rejected: str = ""
    error: str | None = None


class Stream:
    """The state of one stream. Feed it requests and snapshots in the order in which they happen."""

    def __init__(self, snapshot: Snapshot = EMPTY) -> None:
        self._snapshot = snapshot
        self._nonce = 0
        self.watches: dict[str, Watch] = {}

    def on_request(self, request: Request) -> list[Response]:
        """What to answer to a request: nothing, or one response."""
        watch = self.watches.get(request.type_url)
        if watch is None:
            return self._open(request)
        if request.nonce != watch.nonce:
            return []  # the node had not seen our last response yet
        # Envoy asks again, with the same names, for the endpoints of a cluster that changed, and keeps the old cluster
        # until they come, even if they are the same (xDS protocol, "Resource warming").
        asks_again = watch.answered and request.error is None and request.names == watch.names
        wants_more = bool(request.names - watch.names)
        watch.names = request.names
        _judge(watch, request)
        return list(self._respond(request.type_url, watch, anyway=wants_more or asks_again))

    def on_snapshot(self, snapshot: Snapshot) -> list[Response]:
        """What to send now that this snapshot is current, in the order of ORDER."""
        self._snapshot = snapshot
        responses: list[Response] = []
        for type_url in sorted(self.watches, key=_rank):
            responses += self._respond(type_url, self.watches[type_url])
        return responses

    def renew(self, type_url: str) -> list[Response]:
        """Send a type once more as it is, for what would end if it were not heard again."""
        watch = self.watches.get(type_url)
        return list(self._respond(type_url, watch, anyway=True)) if watch else []

    def _open(self, request: Request) -> list[Response]:
        """A first request. A node that reconnects says which version it runs, and is spared hearing it again."""
        watch = self.watches[request.type_url] = Watch(names=request.names)
        if request.version and request.version == self._snapshot.version(request.type_url):
            watch.sent = watch.acknowledged = request.version
            watch.answered = True
        return list(self._respond(request.type_url, watch))

    def _respond(self, type_url: str, watch: Watch, *, anyway: bool = False) -> Iterator[Response]:
        version = self._snapshot.version(type_url)
        held = version == watch.rejected  # until the snapshot changes; to send it again would loop for ever
        if not version or held or (version == watch.sent and not anyway):
            return
        if not watch.names and type_url not in WILDCARD:
            return
        self._nonce += 1
        watch.sent, watch.nonce, watch.answered = version, str(self._nonce), False
        resources = tuple(self._snapshot.select(type_url, watch.names))
        yield Response(type_url, version, watch.nonce, resources)


def _judge(watch: Watch, request: Request) -> None:
    """Take over an ACK or a NACK."""
    if watch.answered or not watch.nonce:
        return
    watch.answered = True
    if request.error is not None:
        watch.rejected, watch.error = watch.sent, request.error
    else:
        watch.acknowledged, watch.rejected, watch.error = watch.sent, "", None


def _rank(type_url: str) -> int:
    return ORDER.index(type_url) if type_url in ORDER else len(ORDER)
