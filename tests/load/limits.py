"""What the limits keep in the store: bytes a caller, and that nothing stays. On a Valkey of its own, by the real script.

.venv/bin/python tests/load/limits.py [--callers 1000000]
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from itertools import islice
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import redis

from controlplane.local.binaries import find_valkey
from ratelimit_service.counters.scripts import Script, decide_arguments
from ratelimit_service.descriptors import Descriptor, caller_tag
from ratelimit_service.limits import Charge, Limit, Rule
from tests.load.bench import Bench
from tests.load.figures import slope
from tests.load.targets import process
from tests.support.ports import free_port
from tests.support.valkey import replies
from tests.support.waiting import eventually

HITS = (1, 20, 100)
FEW = 1_000
"""Callers at each number of hits."""
MANY = (100_000, 1_000_000)
AT_ONCE = 1_000
ENTERPRISE = Limit(200, 5_000, 400)


def measure(bench: Bench) -> dict[str, Any]:
    """Bytes a caller by hits, and up to a million callers."""
    with a_store(bench.scratch) as store:
        return {
            "by_hits": {str(hits): by_hits(store, hits) for hits in HITS},
            "by_callers": by_callers(store, MANY[:1] if bench.quick else MANY),
        }


@contextmanager
def a_store(folder: Path) -> Iterator[redis.Redis]:
    """An empty Valkey, as `mgw up` starts it but with room for everybody."""
    port = free_port()
    words = [
        str(find_valkey(os.environ)),
        "--port",
        str(port),
        "--bind",
        "127.0.0.1",
        "--save",
        "",
        "--appendonly",
        "no",
    ]
    with process(words, folder / "store.log"):
        store = redis.Redis(port=port)
        assert eventually(lambda: replies(store)), "valkey did not start"
        yield store
        store.close()


def by_hits(store: redis.Redis, hits: int) -> dict[str, float]:
    """Bytes a caller who asked so often within the window."""
    spend(store, range(FEW))  # buffers have their size
    _forget(store)
    rest = _used(store)
    for _ in range(hits):
        spend(store, range(FEW))
    check_expiry(store, FEW)
    return {"bytes": round((_used(store) - rest) / FEW)}


def _forget(store: redis.Redis) -> None:
    """Empty it, memory included: by default Valkey gives it back later, in the background."""
    store.execute_command("FLUSHALL", "SYNC")  # type: ignore[no-untyped-call] # redis has no types there


def by_callers(store: redis.Redis, counts: Iterable[int]) -> dict[str, Any]:
    """One request of each of so many callers: bytes, and what the script took each."""
    _forget(store)
    store.config_resetstat()
    began, done, rows = time.monotonic(), 0, {}
    points = [(0.0, float(_used(store)))]
    for count in counts:
        spend(store, range(done, count))
        done = count
        keys = check_expiry(store, count, seconds=time.monotonic() - began)
        points.append((count, _used(store)))
        told: Any = store.info("commandstats")
        rows[str(count)] = {
            "keys": keys,
            "used_mebibytes": round(points[-1][1] / 2**20, 1),
            "script_us": told["cmdstat_evalsha"]["usec_per_call"],
        }
    return {"rows": rows, "bytes_each": round(slope(points)), "seconds": round(time.monotonic() - began, 1)}


def spend(store: redis.Redis, callers: Iterable[int]) -> None:
    """One request of each caller, by the script that the service runs."""
    script = Script("decide.lua")
    store.script_load(script.source)
    rule = Rule("tier", ENTERPRISE)
    remaining = iter(callers)
    while batch := list(islice(remaining, AT_ONCE)):
        pipeline = store.pipeline(transaction=False)
        for number in batch:
            charge = Charge(tag_of(number), rule, 1)
            pipeline.execute_command("EVALSHA", script.sha, *decide_arguments([charge]))  # type: ignore[no-untyped-call] # redis has no types there
        pipeline.execute()


def tag_of(number: int) -> str:
    """As for a request of this caller."""
    return caller_tag(Descriptor("content", "enterprise", f"platform/user-{number}", "", 1), "client_ip")


def _used(store: redis.Redis) -> int:
    told: Any = store.info("memory")
    return int(told["used_memory"])


LIFETIME_SECONDS = 60
"""No caller's keys go before that; after it, the first ones may be gone."""


def check_expiry(store: redis.Redis, callers: int, seconds: float = 0) -> int:
    """How many keys there are: two a caller. RuntimeError if one would stay for ever, or some are missing too early."""
    told: Any = store.info("keyspace")
    keys, expiring = told["db0"]["keys"], told["db0"]["expires"]
    if keys != expiring or (seconds < LIFETIME_SECONDS and keys != 2 * callers):
        raise RuntimeError(f"{keys} keys, {expiring} of which expire, for {callers} callers after {seconds:.0f} s")
    return int(keys)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--callers", type=int, default=MANY[-1])
    arguments = parser.parse_args()
    with TemporaryDirectory(prefix="mgw-load-") as folder, a_store(Path(folder)) as store:
        hits = {str(hits): by_hits(store, hits) for hits in HITS}
        print(json.dumps({"by_hits": hits, "by_callers": by_callers(store, [arguments.callers])}, indent=2))
    return 0


if __name__ == "__main__":
    sys.exit(main())
