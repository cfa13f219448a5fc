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
    """Run the coroutine that `make` returns until it ends.

    A StartFailed becomes one line on standard error, `name: message`, and the exit status 1.
    """
    try:
        if api_implementation.Type() != "upb":
            raise StartFailed("protobuf runs without its C implementation, 80 times slower: install it from a wheel")
        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            runner.run(make())
    except StartFailed as failure:
        print(f"{name}: {failure}", file=sys.stderr)  # noqa: T201 - the one line for the operator
        sys.exit(1)


def freeze_heap() -> None:
    """Tell the garbage collector that what is alive now stays alive, so that it never looks at it again."""
    gc.collect()
    gc.freeze()


def serve_metrics(listen: str | None, registry: CollectorRegistry) -> str | None:
    """Serve metrics over HTTP on `host:port`, and return the bound address. Without an address, do nothing.

    Raises StartFailed where the port cannot be had. The server has a thread of its own, so that neither a scrape waits
    for the event loop nor the loop for a scrape.
    """
    if listen is None:
        return None
    from prometheus_client import start_http_server  # late: it brings an HTTP server along

    host, _, port = listen.rpartition(":")
    try:
        server, _thread = start_http_server(int(port), addr=host.strip("[]"), registry=registry)
    except OSError as error:
        raise StartFailed(f"cannot listen on {listen}: {error.strerror}; set MGW_METRICS_LISTEN to another") from error
    return f"{host}:{server.server_port}"


def stop_signal() -> asyncio.Event:
    """An event that SIGTERM and SIGINT set. Call it in the event loop."""
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    return stop
