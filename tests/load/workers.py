"""More processes, and Envoy on one thread: what a core is worth."""

from __future__ import annotations

from contextlib import ExitStack
from pathlib import Path
from typing import Any

from tests.load.bench import Bench, compare
from tests.load.targets import GatewayOptions, raw_envoy

QUICK = ("authz 2, ratelimit 2", "Envoy on one thread")


def measure(bench: Bench) -> dict[str, Any]:
    """Each beside a raw Envoy with as many threads."""
    one_thread = f"envoy={one_thread_wrap(bench.scratch)}"
    kinds = {
        "default": (GatewayOptions(), None),
        "authz 2, ratelimit 2": (GatewayOptions(authz=2, ratelimit=2), None),
        "Envoy on one thread": (GatewayOptions(wraps=(one_thread,)), 1),
        "in Envoy, two threads": (GatewayOptions("envoy", "envoy"), None),
        "in Envoy, one thread": (GatewayOptions("envoy", "envoy", wraps=(one_thread,)), 1),
    }
    rows = {}
    for number, (name, (how, threads)) in enumerate(kinds.items()):
        if bench.quick and name not in QUICK:
            continue
        with ExitStack() as stack:
            raw = bench.raw
            if threads is not None:
                raw = stack.enter_context(raw_envoy(bench.scratch, bench.upstream.port, threads))
            target = stack.enter_context(bench.gateway(how, f"workers-{number}"))
            rows[name] = compare(bench, target, raw=raw, rounds=bench.few).as_json()
    return rows


def one_thread_wrap(folder: Path) -> Path:
    """A command for `mgw up --wrap envoy=…` that replaces Envoy's number of threads by one."""
    script = folder / "one-thread"
    script.write_text(
        "#!/bin/sh\n"
        "for word do\n"
        "  shift\n"
        '  [ "$last" = --concurrency ] && word=1\n'
        '  set -- "$@" "$word"\n'
        "  last=$word\n"
        "done\n"
        'exec "$@"\n'
    )
    script.chmod(0o755)
    return script
