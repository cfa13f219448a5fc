"""A service's process: its start, its metrics port, and the signals that end it."""

from __future__ import annotations

import asyncio
import gc
import signal
import sys
from collections.abc import Callable, Coroutine
from typing import Any

import uvloop
from google.protobuf.internal import api_implementation
from prometheus_client import CollectorRegistry

from service_kit.errors import StartFailed


def run(name: str, make: Callable[[], Coroutine[Any, Any, None]]) -> None:
    """Run what `make` returns until it ends. A StartFailed is one line on standard error and exit status 1."""
    try:
        if api_implementation.Type() != "upb":
            raise StartFailed("protobuf runs without its C implementation, 80 times slower: install it from a wheel")
        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            runner.run(make())
    except StartFailed as failure:
        print(f"{name}: {failure}", file=sys.stderr)  # noqa: T201 - the one line for the operator
        sys.exit(1)


def freeze_heap() -> None:
    """What is alive now stays alive: the collector need not look at it again."""
    gc.collect()
    gc.freeze()


def serve_metrics(listen: str, registry: CollectorRegistry) -> str:
    """Serve metrics on `host:port`; returns the bound address. Raises StartFailed where it cannot be had.

    In a thread, so that a scrape never waits for the loop, nor the loop for a scrape.
    """
    from prometheus_client import start_http_server  # late: it brings an HTTP server along

    host, _, port = listen.rpartition(":")
    try:
        server, _thread = start_http_server(int(port), addr=host.strip("[]"), registry=registry)
    except OSError as error:
        raise StartFailed(f"cannot listen on {listen}: {error.strerror}; set MGW_METRICS_LISTEN to another") from error
    return f"{host}:{server.server_port}"


def stop_signal() -> asyncio.Event:
    """An event that SIGTERM and SIGINT set."""
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    return stop
