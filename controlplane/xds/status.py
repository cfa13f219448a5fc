"""What every node was told and what it answered: the operator's view of the streams."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from controlplane.xds.stream import Watch


@dataclass(frozen=True)
class TypeStatus:
    """One type at one node. `error` is the node's own words for the version in `rejected`."""

    type_url: str
    version_sent: str
    version_acknowledged: str
    rejected: str = ""
    error: str | None = None

    @property
    def settled(self) -> bool:
        """Whether the node runs the last version that it was sent."""
        return self.version_sent == self.version_acknowledged


@dataclass
class NodeStatus:
    """One node, as long as its stream is open."""

    id: str
    cluster: str
    version: str
    types: dict[str, TypeStatus] = field(default_factory=dict)


class NodeRegistry:
    """The nodes that are connected now. A stream is one entry, so a node that reconnects never hides its old stream."""

    def __init__(self) -> None:
        self._streams: dict[object, NodeStatus] = {}

    def connected(self, stream: object, node: NodeStatus) -> None:
        """A stream said who it is."""
        self._streams[stream] = node

    def disconnected(self, stream: object) -> None:
        """A stream ended."""
        self._streams.pop(stream, None)

    def record(self, stream: object, watches: Mapping[str, Watch]) -> None:
        """Take over how far a stream's watches have come."""
        node = self._streams.get(stream)
        if node is not None:
            node.types = {
                type_url: TypeStatus(type_url, watch.sent, watch.acknowledged, watch.rejected, watch.error)
                for type_url, watch in watches.items()
            }

    def nodes(self) -> list[NodeStatus]:
        """All connected nodes in the order of their ids."""
        return sorted(self._streams.values(), key=lambda node: node.id)
