"""A service's process: how it starts, where its metrics are, and what ends it."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import urllib.request

import pytest
from prometheus_client import CollectorRegistry, Gauge

from service_kit import process
from service_kit.errors import StartFailed


def test_a_start_that_fails_is_one_line_and_exit_status_1(capsys: pytest.CaptureFixture[str]) -> None:
    """The process's name, and what to do; no traceback."""

    async def start() -> None:
        raise StartFailed("X is not set: export X")

    with pytest.raises(SystemExit) as exit_:
        process.run("a_service", start)

    assert exit_.value.code == 1
    assert capsys.readouterr().err == "a_service: X is not set: export X\n"


def test_another_error_is_not_hidden() -> None:
    """It is a fault of ours, so its traceback is wanted."""

    async def start() -> None:
        raise RuntimeError("a bug")

    with pytest.raises(RuntimeError, match="a bug"):
        process.run("a_service", start)


def test_it_runs_on_uvloop_until_the_work_ends() -> None:
    """The work is awaited to its end."""
    loops: list[str] = []

    async def start() -> None:
        loops.append(type(asyncio.get_running_loop()).__module__)

    process.run("a_service", start)
    assert loops == ["uvloop"]


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
async def test_a_signal_says_stop(number: signal.Signals) -> None:
    """SIGTERM from a supervisor and SIGINT from a terminal alike."""
    stop = process.stop_signal()
    assert not stop.is_set()

    os.kill(os.getpid(), number)
    await asyncio.wait_for(stop.wait(), 5)


def test_metrics_are_served_where_they_are_wanted() -> None:
    """Without an address nowhere; at port 0 on a free one, which is returned."""
    registry = CollectorRegistry()
    Gauge("mgw_example", "An example.", registry=registry).set(7)

    assert process.serve_metrics(None, registry) is None
    address = process.serve_metrics("127.0.0.1:0", registry)
    assert address is not None
    assert not address.endswith(":0")
    with urllib.request.urlopen(f"http://{address}/metrics", timeout=5) as response:
        assert b"mgw_example 7.0" in response.read()


def test_a_metrics_port_that_is_taken_fails_the_start() -> None:
    """The message has the address and the variable that changes it."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        address = f"127.0.0.1:{taken.getsockname()[1]}"
        with pytest.raises(StartFailed, match=f"cannot listen on {address}: .*; set MGW_METRICS_LISTEN"):
            process.serve_metrics(address, CollectorRegistry())
