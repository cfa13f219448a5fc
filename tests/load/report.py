"""Everything that is known about the gateway's speed, measured beside raw Envoy on this machine.

    .venv/bin/python tests/load/report.py [--quick] [--only bars,…] [--times N]

Writes docs/performance.json, to which each piece is merged when it is done, and from that docs/performance.md with its
plots and the README's short table. `--only bars --times 3` measures the bars three times and says pass or fail. Needs `wrk`; what other proxies need
is said in the report. Exit status: 0 fine, 1 a bar not reached or a request failed, 69 wrk is missing.
"""

from __future__ import annotations

import argparse
import signal
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from tests.load import bars, charts, decisions, growth, latency, limits, render, results, rivals, storms, workers, wrk
from tests.load.bench import Bench, a_bench
from tests.load.processes import machine_busy_percent

ROOT = Path(__file__).resolve().parents[2]
DOCS, README = ROOT / "docs", ROOT / "README.md"
QUIET_PERCENT = 10
Piece = Callable[[Bench], dict[str, Any]]

PIECES: Mapping[str, Piece] = {
    "bars": bars.measure,
    "rivals": rivals.measure,
    "latency": latency.measure,
    "connections": growth.connections,
    "callers": growth.callers,
    "routes": growth.routes,
    "storms": storms.storms,
    "hot": storms.hot_caller,
    "workers": workers.measure,
    "decisions": decisions.measure,
    "memory": limits.measure,
}


def main() -> int:
    arguments = _arguments()
    if wrk.is_missing():
        print(wrk.MISSING, file=sys.stderr)
        return 69
    signal.signal(signal.SIGTERM, lambda number, frame: sys.exit(143))  # so that everything started here stops
    rounds, seconds = (2, 1) if arguments.quick else (arguments.rounds, arguments.seconds)
    tested: list[dict[str, Any]] = []
    with a_bench(seconds=seconds, rounds=rounds, quick=arguments.quick) as bench:
        for name in arguments.only:
            began = time.monotonic()
            about = results.about(quick=arguments.quick, seconds=seconds, rounds=rounds, busy=_busy())
            times = [PIECES[name](bench) for _ in range(arguments.times)]
            tested += times if name == "bars" else []
            _keep(arguments.docs, name, bars.together(times) if name == "bars" else times[-1], about)
            print(f"{name}: {time.monotonic() - began:.0f} s", file=sys.stderr)
    print("\n".join(bars.lines(tested)))
    return 1 if any(_has_failed(row) for rows in tested for row in rows.values()) else 0


def _busy() -> float | None:
    """What else this machine does, before a piece begins; our own parts are idle then."""
    busy = machine_busy_percent()
    if busy is not None and busy > QUIET_PERCENT:
        print(f"the machine is {busy:.0f} % busy with something else: figures will vary", file=sys.stderr)
    return busy


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="fewer and shorter rounds: three minutes")
    parser.add_argument("--only", type=_pieces, default=tuple(PIECES), help=f"some of {','.join(PIECES)}")
    parser.add_argument(
        "--times", type=int, default=1, help="measure so often; of the bars the middle one is kept, else the last"
    )
    parser.add_argument("--rounds", type=int, default=5, help="raw Envoy and the gateway, so often in turn")
    parser.add_argument("--seconds", type=int, default=1, help="the length of one round's half")
    parser.add_argument("--docs", type=Path, default=DOCS, help="where the report is written")
    return parser.parse_args()


def _pieces(text: str) -> tuple[str, ...]:
    names = tuple(name for name in text.split(",") if name)
    if unknown := [name for name in names if name not in PIECES]:
        raise argparse.ArgumentTypeError(f"no such piece: {', '.join(unknown)}; there are {', '.join(PIECES)}")
    return names


def _keep(docs: Path, name: str, figures: Mapping[str, Any], about: Mapping[str, Any]) -> None:
    """Merge one piece and write the report anew."""
    path = docs / "performance.json"
    merged = results.merged(results.read(path), name, figures, about)
    results.write(path, merged)
    write_report(docs, merged)


def write_report(docs: Path, measured: results.Results) -> None:
    """The text and the plots, from the figures alone."""
    (docs / "performance.md").write_text(render.markdown(measured))
    folder = docs / "performance"
    folder.mkdir(exist_ok=True)
    for name, svg in charts.plots(measured).items():
        (folder / name).write_text(svg)
    if docs == DOCS:
        README.write_text(render.with_short_figures(README.read_text(), measured))


def _has_failed(row: Mapping[str, Any]) -> bool:
    return bool(row["errors"]) or not row["passes"]


if __name__ == "__main__":
    sys.exit(main())
