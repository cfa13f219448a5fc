"""Envoy's messages and the small ones around them."""

from __future__ import annotations

import ast
import inspect
import math
from collections.abc import Iterator
from types import ModuleType
from typing import Any

import pytest
from google.protobuf import json_format
from google.protobuf.internal import api_implementation
from google.protobuf.message import Message
from hypothesis import given
from hypothesis import strategies as st

from controlplane import protos
from tests.support.configs import ROOT

JSON_VALUES = st.recursive(
    st.none() | st.booleans() | st.floats(allow_nan=False, allow_infinity=False) | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=6,
)
OBJECTS = st.dictionaries(st.text(max_size=5), JSON_VALUES, max_size=5)


@given(OBJECTS)
def test_a_struct_holds_what_json_has(values: dict[str, Any]) -> None:
    """And gives it back; numbers are doubles."""
    assert protos.message_to_dict(protos.struct(values)) == values


@pytest.mark.parametrize("value", [object(), b"x", {1, 2}])
def test_a_struct_holds_nothing_else(value: Any) -> None:
    """What is none of JSON's values is an error."""
    with pytest.raises((json_format.ParseError, TypeError, ValueError)):
        protos.struct({"a": value})


@given(OBJECTS)
def test_equal_messages_are_equal_bytes(values: dict[str, Any]) -> None:
    """In whatever order their maps were filled: versions are hashes of bytes."""
    turned = dict(reversed(values.items()))

    one, other = protos.any_of(protos.struct(values)), protos.any_of(protos.struct(turned))

    assert one.SerializeToString(deterministic=True) == other.SerializeToString(deterministic=True)
    assert one.value == other.value
    assert one.type_url == "type.googleapis.com/google.protobuf.Struct"


@pytest.mark.parametrize(
    ("seconds", "whole", "nanos"),
    [
        (0, 0, 0),
        (5, 5, 0),
        (0.25, 0, 250_000_000),
        (1.5, 1, 500_000_000),
        (0.001, 0, 1_000_000),
        (0.0000001, 0, 0),
        (86_400.5, 86_400, 500_000_000),
        (-1.5, -1, -500_000_000),
    ],
)
def test_durations(seconds: float, whole: int, nanos: int) -> None:
    """Seconds and nanoseconds of one sign, to the microsecond."""
    found = protos.duration(seconds)

    assert (found.seconds, found.nanos) == (whole, nanos)


@given(st.floats(0, 86_400))
def test_a_duration_is_as_long_as_it_was(seconds: float) -> None:
    """Up to a microsecond, over all that a document may say."""
    assert math.isclose(protos.duration(seconds).ToTimedelta().total_seconds(), seconds, abs_tol=1e-6)


@pytest.mark.parametrize("value", [0, 1, 2**32 - 1])
def test_numbers_that_are_set(value: int) -> None:
    """Also 0, which a plain field could not tell from absence."""
    cluster = protos.cluster.Cluster(per_connection_buffer_limit_bytes=protos.uint32(value))

    assert cluster.HasField("per_connection_buffer_limit_bytes")
    assert cluster.per_connection_buffer_limit_bytes.value == value
    assert protos.uint64(value << 32).value == value << 32


@pytest.mark.parametrize("value", [-1, 2**32])
def test_numbers_that_do_not_fit(value: int) -> None:
    """They are an error, and never another number."""
    with pytest.raises(ValueError, match="out of range"):
        protos.uint32(value)


def test_false_that_is_set() -> None:
    """It is there, and false."""
    options = protos.hcm.HttpConnectionManager(normalize_path=protos.boolean(False))

    assert options.HasField("normalize_path")
    assert options.normalize_path.value is False
    assert protos.boolean(True).value is True


def test_a_number_that_the_runtime_may_change() -> None:
    """With the key under which it may, and what holds until then."""
    found = protos.runtime_uint32(3, "a.key")

    assert (found.default_value, found.runtime_key) == (3, "a.key")


@pytest.mark.parametrize("name_it", [protos.named, protos.xds_named])
def test_an_extension_is_a_name_and_the_message(name_it: Any) -> None:
    """The message comes out again as it was."""
    router = protos.router_filter.Router(suppress_envoy_headers=True)

    found = name_it("envoy.filters.http.router", router)

    again = protos.router_filter.Router()
    assert found.name == "envoy.filters.http.router"
    assert found.typed_config.Unpack(again)
    assert again == router


def test_a_message_as_json_has_the_names_of_its_proto() -> None:
    """As Envoy's documentation and its bootstrap have them; what an Any holds is there too."""
    listener = protos.listener.Listener(name="a")
    listener.filter_chains.add().filters.add(typed_config=protos.any_of(protos.duration(1.5)))

    assert protos.message_to_dict(listener) == {
        "name": "a",
        "filter_chains": [
            {
                "filters": [
                    {"typed_config": {"@type": "type.googleapis.com/google.protobuf.Duration", "value": "1.500s"}}
                ]
            }
        ],
    }


def test_upb_is_what_runs() -> None:
    """Here, and the control plane may start."""
    protos.require_upb()


def test_without_upb_nothing_starts(monkeypatch: pytest.MonkeyPatch) -> None:
    """The message says which runtime it is, and what to do."""
    monkeypatch.setattr(api_implementation, "Type", lambda: "python")

    with pytest.raises(RuntimeError, match="'python', not on upb: reinstall protobuf"):
        protos.require_upb()


def messages(module: ModuleType) -> Iterator[type[Message]]:
    return (each for each in vars(module).values() if inspect.isclass(each) and issubclass(each, Message))


@pytest.mark.parametrize("name", [each for each in protos.__all__ if inspect.ismodule(getattr(protos, each))])
def test_each_name_is_a_module_of_envoys_messages(name: str) -> None:
    """Of the packages that ship with us, under which no other distribution installs anything."""
    module = getattr(protos, name)

    assert module.__name__.startswith("envoy_api.")
    assert list(messages(module))


def test_what_is_imported_is_offered() -> None:
    """And what is offered is there: nobody imports Envoy's messages from elsewhere."""
    tree = ast.parse((ROOT / "controlplane" / "protos.py").read_text())
    imported = {
        each.asname or each.name
        for node in tree.body
        if isinstance(node, ast.ImportFrom) and str(node.module).startswith("envoy_api.")
        for each in node.names
    }

    assert imported <= set(protos.__all__)
    assert all(hasattr(protos, name) for name in protos.__all__)
