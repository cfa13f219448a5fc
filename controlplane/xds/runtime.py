"""Each node's layer of Envoy's runtime: numbers that change by the second, and end unless they are renewed."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping

from controlplane import protos
from controlplane.xds.resources import RUNTIME
from controlplane.xds.snapshot import Snapshot

LAYER = "mgw"
"""The layer's name, in the bootstrap too. Envoy 1.40 ends itself where one of several RTDS layers expires: have one."""
LIFE_SECONDS = 3.0
"""A layer that says something ends so long after it was last heard of: no control plane, no caps."""
RENEW_SECONDS = 1.0

Layer = Mapping[str, int]


class RuntimeLayers:
    """What every node's layer says now, and which of them acknowledged it."""

    def __init__(self) -> None:
        self._layers: Mapping[str, Layer] = {}
        self._snapshots: dict[str, Snapshot] = {}
        self._acknowledged: dict[str, str] = {}
        self._changed = asyncio.Event()

    def set(self, layers: Mapping[str, Layer]) -> None:
        """Make these the layers; a node that is not named has an empty one."""
        if layers != self._layers:
            self._layers = layers
            self._snapshots = {}
            self.renew()

    def renew(self) -> None:
        """Have every node told again."""
        changed, self._changed = self._changed, asyncio.Event()
        changed.set()

    @property
    def is_empty(self) -> bool:
        """Whether no layer says anything, so that nothing has to be renewed."""
        return not self._layers

    def says_something(self, node: str) -> bool:
        """Whether this node's layer would be missed."""
        return bool(self._layers.get(node))

    def snapshot(self, node: str) -> Snapshot:
        """The node's layer as a snapshot of its own."""
        if node not in self._snapshots:
            self._snapshots[node] = Snapshot({RUNTIME: {LAYER: _resource(self._layers.get(node, {}))}})
        return self._snapshots[node]

    def next_change(self) -> asyncio.Event:
        """An event that is set when nodes have to be told."""
        return self._changed

    def acknowledged(self, node: str, version: str) -> None:
        """A node runs this version."""
        self._acknowledged[node] = version

    def is_confirmed(self, node: str) -> bool:
        """Whether the node runs what its layer says now."""
        return self._acknowledged.get(node) == self.snapshot(node).version(RUNTIME)


def _resource(layer: Layer) -> bytes:
    runtime = protos.rtds.Runtime(name=LAYER, layer=protos.struct(dict(layer)))
    if not layer:
        return protos.any_of(runtime).SerializeToString(deterministic=True)
    resource = protos.discovery.Resource(name=LAYER, resource=protos.any_of(runtime), ttl=protos.duration(LIFE_SECONDS))
    return protos.any_of(resource).SerializeToString(deterministic=True)
