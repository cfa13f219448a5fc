"""The workbench that all pieces share: an upstream, raw Envoy before it, five callers, and how long to measure."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import median

from tests.load import wrk
from tests.load.callers import five_callers, script_in_turn
from tests.load.figures import Ratio, medians, order_of_round, paired_ratio
from tests.load.processes import resident_mebibytes
from tests.load.targets import GatewayOptions, Target, gateway, raw_envoy, upstream

CONNECTIONS = 64


@dataclass(frozen=True)
class Bench:
    """Where things are, and how long one measurement lasts (`seconds`) and how often it is repeated (`rounds`)."""

    scratch: Path
    upstream: Target
    raw: Target
    five: Path
    seconds: int
    rounds: int
    quick: bool = False

    @property
    def few(self) -> int:
        """Rounds for a point of a curve, of which there are many."""
        return max(1, self.rounds // 2)

    @contextmanager
    def gateway(self, how: GatewayOptions, name: str = "gateway") -> Iterator[Target]:
        """A gateway before the same upstream, in a folder of its own."""
        with (
            tempfile.TemporaryDirectory(dir=self.scratch, prefix=f"{name}-") as folder,
            gateway(Path(folder), self.upstream.port, how, name) as target,
        ):
            yield target


@contextmanager
def a_bench(*, seconds: int, rounds: int, quick: bool = False) -> Iterator[Bench]:
    """A workbench; everything on it stops with the block."""
    with ExitStack() as stack:
        scratch = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="mgw-load-")))
        answers = stack.enter_context(upstream(scratch))
        raw = stack.enter_context(raw_envoy(scratch, answers.port))
        yield Bench(scratch, answers, raw, script_in_turn(scratch, five_callers()), seconds, rounds, quick)


@dataclass(frozen=True)
class Compared:
    """Raw Envoy and a target in alternating rounds. Milliseconds, microseconds of CPU a request, mebibytes."""

    ratio: Ratio
    raw_requests_per_second: float
    requests_per_second: float
    raw_p99: float
    p50: float
    p99: float
    errors: int
    raw_cpu: dict[str, float]
    cpu: dict[str, float]
    memory_before: dict[str, float]
    memory_after: dict[str, float]

    def as_json(self) -> dict[str, object]:
        return asdict(self)


def compare(
    bench: Bench,
    target: Target,
    script: Path | None = None,
    *,
    raw: Target | None = None,
    rounds: int | None = None,
    connections: int = CONNECTIONS,
) -> Compared:
    """Alternate raw Envoy and the target, round by round, after a second of each."""
    script, sides = script or bench.five, {"raw": raw or bench.raw, "target": target}
    before = resident_mebibytes(target.pids)
    for side in sides.values():
        wrk.run(side.url, script, seconds=1, connections=connections)  # connections open, caches warm
    loads: dict[str, list[wrk.Load]] = {name: [] for name in sides}
    for number in range(rounds or bench.rounds):
        for name in order_of_round(number, tuple(sides)):
            side = sides[name]
            loads[name].append(wrk.load(side.url, script, side.pids, seconds=bench.seconds, connections=connections))
    return summary(loads["raw"], loads["target"], before, resident_mebibytes(target.pids))


def summary(
    raw: Sequence[wrk.Load], target: Sequence[wrk.Load], before: dict[str, float], after: dict[str, float]
) -> Compared:
    """The rounds as one row."""
    rates = [load.output.requests_per_second for load in target]
    raw_rates = [load.output.requests_per_second for load in raw]
    return Compared(
        ratio=paired_ratio(raw_rates, rates),
        raw_requests_per_second=round(median(raw_rates)),
        requests_per_second=round(median(rates)),
        raw_p99=round(median(load.output.p99 for load in raw), 2),
        p50=round(median(load.output.p50 for load in target), 2),
        p99=round(median(load.output.p99 for load in target), 2),
        errors=sum(load.output.errors for load in (*raw, *target)),
        raw_cpu=medians([load.cpu for load in raw]),
        cpu=medians([load.cpu for load in target]),
        memory_before=before,
        memory_after=after,
    )
