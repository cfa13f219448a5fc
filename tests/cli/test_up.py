"""What `mgw up` takes from the environment."""

from __future__ import annotations

import os

import pytest

from controlplane.cli.up import _log_mib_of, _redis_of, _workers_of
from controlplane.local.exits import USAGE, Failure


def test_workers_are_the_cores_unless_told() -> None:
    """API_GATEWAY_WORKERS is Envoy's number of threads; empty is absent."""
    cores = len(os.sched_getaffinity(0))

    assert [_workers_of(each) for each in ({}, {"API_GATEWAY_WORKERS": ""})] == [cores, cores]
    assert _workers_of({"API_GATEWAY_WORKERS": "7"}) == 7


@pytest.mark.parametrize("text", ["0", "-1", "many", "1.5", "1025"])
def test_what_is_no_number_of_workers(text: str) -> None:
    """Named, with what would fit; the command was not understood."""
    with pytest.raises(Failure, match="API_GATEWAY_WORKERS") as failed:
        _workers_of({"API_GATEWAY_WORKERS": text})
    assert failed.value.status == USAGE


def test_how_long_a_log_may_be() -> None:
    """MGW_LOG_MIB, in MiB; empty is absent."""
    assert [_log_mib_of(each) for each in ({}, {"MGW_LOG_MIB": ""}, {"MGW_LOG_MIB": "7"})] == [64, 64, 7]


@pytest.mark.parametrize("text", ["0", "-1", "64M", "1.5", "1048577"])
def test_what_is_no_length_of_a_log(text: str) -> None:
    """Named, with what would fit."""
    with pytest.raises(Failure, match="MGW_LOG_MIB") as failed:
        _log_mib_of({"MGW_LOG_MIB": text})
    assert failed.value.status == USAGE


def test_which_store() -> None:
    """--redis, else REDIS_URL, else the embedded one."""
    environment = {"REDIS_URL": " redis://h "}

    assert [_redis_of(each, environment) for each in ("none", "embedded", None)] == ["none", "embedded", "redis://h"]
    assert [_redis_of(None, each) for each in ({}, {"REDIS_URL": ""})] == ["embedded", "embedded"]


@pytest.mark.parametrize(("given", "name"), [("redis://:hush@h:0", "--redis"), (None, "REDIS_URL")])
def test_what_is_no_store(given: str | None, name: str) -> None:
    """Told before anything starts, and nothing of it is repeated."""
    with pytest.raises(Failure, match=f"^{name}: the port of the host") as failed:
        _redis_of(given, {"REDIS_URL": "redis://:hush@h:0"})
    assert failed.value.status == USAGE
    assert "hush" not in str(failed.value)
