"""Raw Envoy and one gateway, in one run on one upstream: throughput, latency, CPU a request, and the ratio.

    .venv/bin/python tests/load/compare.py [--seconds 8] [--connections 64] [--json FILE]

For one question at a time; report.py measures everything. Needs `wrk` on PATH. Everything runs on loopback and stops by
itself. Only the ratio says anything about the gateway: absolute figures are those of the machine, on which the load
generator and the upstream run too.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
from pathlib import Path
from typing import Any

from tests.load import wrk
from tests.load.bench import CONNECTIONS, Bench, a_bench
from tests.load.targets import GatewayOptions, Target


def main() -> int:
    arguments = _arguments()
    if wrk.is_missing():
        print(wrk.MISSING, file=sys.stderr)
        return 69
    how = GatewayOptions(arguments.verified_by, arguments.enforced_by, arguments.authz, arguments.ratelimit)
    with a_bench(seconds=arguments.seconds, rounds=1) as bench, bench.gateway(how) as gateway:
        targets = {"raw Envoy": bench.raw, "gateway": gateway}
        results = {name: _measured(bench, target, arguments.connections) for name, target in targets.items()}
    print(f"{os.cpu_count()} cores, wrk, {arguments.connections} connections, {arguments.seconds} s each\n")
    print("\n".join(_table(results)))
    if arguments.json:
        arguments.json.write_text(json.dumps(results, indent=2))
    return 1 if any(figures["errors"] for figures in results.values()) else 0


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=int, default=8, help="how long each target is loaded")
    parser.add_argument("--connections", type=int, default=CONNECTIONS)
    parser.add_argument("--authz", type=int, default=1)
    parser.add_argument("--ratelimit", type=int, default=1)
    parser.add_argument("--verified-by", choices=("authz_service", "envoy"), default="authz_service")
    parser.add_argument("--enforced-by", choices=("ratelimit_service", "envoy"), default="ratelimit_service")
    parser.add_argument("--json", type=Path, help="write the figures here too")
    return parser.parse_args()


def _measured(bench: Bench, target: Target, connections: int) -> dict[str, Any]:
    wrk.run(target.url, bench.five, seconds=1, connections=connections)  # connections open, caches warm
    load = wrk.load(target.url, bench.five, target.pids, seconds=bench.seconds, connections=connections)
    output = load.output
    return {
        "requests_per_second": output.requests_per_second,
        "p50": output.p50,
        "p99": output.p99,
        "errors": output.errors,
        "cpu": load.cpu,
    }


def _table(results: dict[str, dict[str, Any]]) -> list[str]:
    raw = results["raw Envoy"]["requests_per_second"]
    lines = [f"{'target':12} {'req/s':>9} {'of raw':>7} {'p50 ms':>8} {'p99 ms':>8} {'errors':>7}  CPU µs a request"]
    for name, row in results.items():
        rate = row["requests_per_second"]
        cpu = ", ".join(f"{part} {value:g}" for part, value in row["cpu"].items() if value)
        lines.append(
            f"{name:12} {rate:9.0f} {rate / raw:7.2f} {row['p50']:8.2f} {row['p99']:8.2f} {row['errors']:7}  {cpu}"
        )
    return lines


if __name__ == "__main__":
    sys.exit(main())
