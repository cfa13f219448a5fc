"""Envoy's bootstrap, judged by Envoy."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

import pytest

from controlplane.local.binaries import find_envoy
from controlplane.local.bootstrap import bootstrap, max_connections
from controlplane.local.plan import Part
from controlplane.local.resources import bootstrap_template

TEMPLATE = bootstrap_template()


def an_envoy() -> Part:
    return Part("envoy", 1, (), {}, "127.0.0.1:20001", Path("/log"), admin="http://127.0.0.1:20002")


def validate(path: Path) -> str:
    """Envoy's complaints about a bootstrap; none when it is good."""
    done = subprocess.run(
        [find_envoy({}), "--mode", "validate", "--disable-hot-restart", "-l", "warning", "-c", path],
        capture_output=True,
        text=True,
        timeout=20,
        check=False,
    )
    return done.stderr if done.returncode or done.stderr else ""


def test_envoy_accepts_the_template_without_a_warning() -> None:
    """The file that containers use is good as it stands, and uses nothing deprecated."""
    assert validate(TEMPLATE) == ""


def test_envoy_accepts_what_a_local_run_makes_of_it(tmp_path: Path) -> None:
    """So is what `mgw up` writes."""
    path = tmp_path / "bootstrap.json"
    path.write_text(json.dumps(bootstrap(TEMPLATE.read_text(), an_envoy(), ["127.0.0.1:1", "127.0.0.1:2"], 1 << 28, 7)))

    assert validate(path) == ""


def test_a_local_run_fills_in_what_differs() -> None:
    """Node, listener, admin and control planes are this run's, the cap on connections where it is higher."""
    document = bootstrap(TEMPLATE.read_text(), an_envoy(), ["127.0.0.1:1", "127.0.0.1:2"], 1 << 28, 30_000)
    (cluster,) = document["static_resources"]["clusters"]
    endpoints = cluster["load_assignment"]["endpoints"][0]["lb_endpoints"]
    heap, connections = document["overload_manager"]["resource_monitors"]

    assert document["node"]["id"] == "envoy-1"
    assert document["node"]["metadata"] == {"listener": {"host": "127.0.0.1", "port": 20001}}
    assert document["admin"]["address"]["socket_address"] == {"address": "127.0.0.1", "port_value": 20002}
    assert [e["endpoint"]["address"]["socket_address"]["port_value"] for e in endpoints] == [1, 2]
    assert connections["typed_config"]["max_active_downstream_connections"] == 30_000
    assert heap["typed_config"]["max_heap_size_bytes"] == 1 << 28


@pytest.mark.parametrize("most", [None, 7, 25_000])
def test_what_an_envoy_can_bear_is_not_lowered(most: int | None) -> None:
    """A lower number is enforced by the listener, which may raise it again while Envoy runs."""
    document = bootstrap(TEMPLATE.read_text(), an_envoy(), ["127.0.0.1:1"], 1 << 28, most)

    _, connections = document["overload_manager"]["resource_monitors"]
    assert connections["typed_config"]["max_active_downstream_connections"] == 25_000


@pytest.mark.parametrize(
    ("text", "most"),
    [
        ("listener: {max_connections: 5}", 5),
        ("listener: {max_connections: '${MANY}'}", None),
        ("listener: {}", None),
        ("listener: [", None),
        ("- 1", None),
    ],
)
def test_the_cap_is_read_where_the_configuration_says_it(tmp_path: Path, text: str, most: int | None) -> None:
    """Anything but a plain number leaves the bootstrap's own cap; judging the file is the control plane's work."""
    path = tmp_path / "gateway.yaml"
    path.write_text(text)

    assert max_connections(path) == most
