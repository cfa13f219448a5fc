"""Runtime layers: who has to be told, what each node is told, and who has heard it."""

from __future__ import annotations

from typing import Any

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from controlplane.local.resources import bootstrap_template
from controlplane.protos import discovery, message_to_dict, rtds
from controlplane.xds.resources import RUNTIME
from controlplane.xds.runtime import LAYER, LIFE_SECONDS, RENEW_SECONDS, Layer, RuntimeLayers

LAYERS = st.dictionaries(
    st.sampled_from(["envoy-0", "envoy-1", "envoy-2"]),
    st.dictionaries(st.text(min_size=1, max_size=5), st.integers(0, 1 << 31), min_size=1, max_size=3),
)


def said(layers: RuntimeLayers, node: str) -> tuple[dict[str, Any], float | None]:
    """What a node is told, and after how many seconds it ends."""
    (content,) = layers.snapshot(node).select(RUNTIME, frozenset({LAYER}))
    packed = discovery.Resource().resource
    packed.ParseFromString(content)
    if packed.Is(rtds.Runtime.DESCRIPTOR):
        return message_to_dict(rtds.Runtime.FromString(packed.value)).get("layer", {}), None
    resource = discovery.Resource.FromString(packed.value)
    layer = rtds.Runtime.FromString(resource.resource.value)
    assert layer.name == resource.name == LAYER
    return message_to_dict(layer).get("layer", {}), resource.ttl.ToTimedelta().total_seconds()


def confirm(layers: RuntimeLayers, *nodes: str) -> None:
    for node in nodes:
        layers.acknowledged(node, layers.snapshot(node).version(RUNTIME))


def test_a_node_that_nothing_is_said_to_has_an_empty_layer_for_good() -> None:
    """It does not end, so that nothing has to be renewed while all is well."""
    layers = RuntimeLayers()

    assert said(layers, "envoy-0") == ({}, None)
    assert (layers.is_empty, layers.says_something("envoy-0")) == (True, False)


@given(LAYERS)
def test_each_node_has_its_own_layer_and_it_ends(given_layers: dict[str, Layer]) -> None:
    """A node is told its own numbers, with their end; one that is not named is told nothing that ends."""
    layers = RuntimeLayers()
    layers.set(given_layers)

    for node in ("envoy-0", "envoy-1", "envoy-2"):
        numbers = given_layers.get(node)
        assert said(layers, node) == ((numbers, LIFE_SECONDS) if numbers else ({}, None))
        assert layers.says_something(node) is bool(numbers)
    assert layers.is_empty is not bool(given_layers)


@given(LAYERS, LAYERS)
def test_nodes_are_woken_by_a_change_and_by_nothing_else(before: dict[str, Layer], after: dict[str, Layer]) -> None:
    """The same layers again, in whatever order, are no news."""
    layers = RuntimeLayers()
    layers.set(before)
    waiting = layers.next_change()

    layers.set(dict(reversed(after.items())))

    assert waiting.is_set() is (before != after)
    assert layers.next_change().is_set() is False


def test_a_renewal_wakes_everyone_once() -> None:
    """The event of before is set, the next one is not: it says the same, and has the same version."""
    layers = RuntimeLayers()
    layers.set({"envoy-0": {"cap": 1}})
    version, waiting = layers.snapshot("envoy-0").version(RUNTIME), layers.next_change()

    layers.renew()

    assert waiting.is_set()
    assert not layers.next_change().is_set()
    assert layers.snapshot("envoy-0").version(RUNTIME) == version


def test_versions_are_those_of_the_numbers() -> None:
    """Equal layers have equal versions, at other nodes and after a change and back."""
    layers = RuntimeLayers()
    layers.set({"envoy-0": {"a": 1, "b": 2}, "envoy-1": {"b": 2, "a": 1}, "envoy-2": {"a": 2, "b": 1}})
    first, same, other = (layers.snapshot(f"envoy-{n}").version(RUNTIME) for n in range(3))

    layers.set({"envoy-0": {"a": 1}})
    changed = layers.snapshot("envoy-0").version(RUNTIME)
    layers.set({"envoy-0": {"a": 1, "b": 2}})

    assert first == same == layers.snapshot("envoy-0").version(RUNTIME)
    assert len({first, other, changed}) == 3


def test_a_layer_is_confirmed_when_the_node_runs_it() -> None:
    """Not before it said so, and not once there is another."""
    layers = RuntimeLayers()
    assert not layers.is_confirmed("envoy-0")
    confirm(layers, "envoy-0", "envoy-1")
    assert layers.is_confirmed("envoy-0")

    layers.set({"envoy-0": {"cap": 0}})
    assert [layers.is_confirmed(node) for node in ("envoy-0", "envoy-1")] == [False, True]
    layers.acknowledged("envoy-0", "the version of before")
    assert not layers.is_confirmed("envoy-0")
    confirm(layers, "envoy-0")
    assert layers.is_confirmed("envoy-0")

    layers.set({})
    assert not layers.is_confirmed("envoy-0")


def test_a_layer_outlives_a_renewal_that_is_lost() -> None:
    """It is renewed twice before it ends, so that one message that comes late lifts no cap."""
    assert 2 * RENEW_SECONDS < LIFE_SECONDS


@pytest.mark.parametrize("key", ["name", "rtds_layer"])
def test_envoys_bootstrap_asks_for_the_layer(key: str) -> None:
    """By its name; and it is the one layer that comes from us, since more than one that ends would end Envoy."""
    document = yaml.safe_load(bootstrap_template().read_text())
    remote = [each for each in document["layered_runtime"]["layers"] if "rtds_layer" in each]

    assert [each[key] if key == "name" else each[key]["name"] for each in remote] == [LAYER]
