"""One service's breaker as a value: `step(breaker, event, at)` is all that ever happens to it. No clock, no I/O.

Closed, nothing is capped. Open, nothing passes until `until`. Half-open, `rights` says how many requests each Envoy may
have at the service at once; together they never have more than `Rules.trials`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Literal

State = Literal["closed", "open", "half_open"]

WINDOW_SECONDS = 10.0
"""Over how long an error rate is taken. Envoy's own looks at half a second, and opens sooner where there is traffic."""
MOVE_SECONDS = 0.3
"""A right to try that nobody uses moves to an Envoy that has somebody waiting, but not sooner than this."""
SETTLED_REPORTS = 2
"""So many reports after it acknowledged the loss of its rights, an Envoy's workers all know of it."""


@dataclass(frozen=True)
class Rules:
    """When a service's breaker opens, for how long, and how many may try the service at once after that."""

    failures: int = 10
    error_rate_percent: int = 50
    open_seconds: float = 2.0
    trials: int = 1
    is_single: bool = True
    """One endpoint. With several, a sick one is Envoy's to eject alone: rates over all of them say nothing."""


@dataclass(frozen=True)
class Count:
    """What an Envoy counted at a service since its last report."""

    issued: int = 0
    successes: int = 0
    errors: int = 0
    """5xx, resets, time-outs; and also requests that its own cap turned away."""
    in_progress: int = 0
    """How many are at the service now."""
    dropped: int = 0
    """Turned away by a cap: they never reached the service."""
    unconnected: int = 0
    """Connections that could not be made."""


@dataclass(frozen=True)
class Reported:
    """A report of one Envoy. `confirmed`: it had by then acknowledged the caps that it was told last."""

    node: str
    count: Count
    confirmed: bool = True


@dataclass(frozen=True)
class Ejection:
    """Whether an Envoy has ejected every endpoint, so that it refuses by itself."""

    node: str
    is_total: bool


@dataclass(frozen=True)
class Lost:
    """An Envoy reports no more. What cannot be heard is not capped."""

    node: str


@dataclass(frozen=True)
class Tick:
    """Time goes on."""


Event = Reported | Ejection | Lost | Tick


@dataclass(frozen=True)
class View:
    """One Envoy, as far as it is known."""

    is_heard: bool = False
    is_ejected: bool = False
    in_progress: int = 0
    balance: int = 0
    """Finished less succeeded, over all reports. A success is counted at its headers, its end maybe reports later."""
    settled: int = 0
    """The highest balance that was accounted for: only above it there is something new that failed."""
    asked_at: float = float("-inf")
    """When it last had to turn somebody away."""
    errors: int = 0
    """Answers that were errors by their headers, and have not ended yet."""
    has_tried: bool = False
    """Whether it sent a trial since the breaker is half-open."""
    before: int = 0
    """Requests at the service from before the breaker opened: their ends are no answers to a trial."""
    quiet_reports: int = 0
    """Reports with nothing in progress since it acknowledged its caps."""


@dataclass(frozen=True)
class Breaker:
    """All there is to know. `since` and `until` are seconds of the caller's clock."""

    rules: Rules = Rules()
    state: State = "closed"
    since: float = 0.0
    until: float = 0.0
    why: str = "no failures yet"
    views: Mapping[str, View] = field(default_factory=dict)
    rights: Mapping[str, int] = field(default_factory=dict)
    """By Envoy, while half-open; an Envoy that is not named has none."""
    moving: frozenset[str] = frozenset()
    """Envoys whose rights were taken back, until they are known to have nothing under way."""
    moved_at: float = 0.0
    window: tuple[tuple[float, int, int], ...] = ()
    """Reports of the last WINDOW_SECONDS: when, how many succeeded, how many failed."""
    in_a_row: int = 0
    """Failures since the last success."""

    def cap(self, node: str) -> int | None:
        """How many requests this Envoy may have at the service at once; None: as many as it likes."""
        view = self.views.get(node)
        if self.state == "closed" or view is None or not view.is_heard:
            return None
        return self.rights.get(node, 0)

    @property
    def heard(self) -> tuple[str, ...]:
        """The Envoys that report, by name."""
        return tuple(sorted(node for node, view in self.views.items() if view.is_heard))

    @property
    def failed(self) -> int:
        """Failures in the window."""
        return sum(failed for _, _, failed in self.window)

    @property
    def asked(self) -> int:
        """Answers, good or bad, in the window."""
        return sum(well + failed for _, well, failed in self.window)


def step(breaker: Breaker, event: Event, at: float) -> Breaker:
    """The breaker after an event at a time, which never runs backwards."""
    match event:
        case Reported(node, count, confirmed):
            after = _reported(breaker, node, count, confirmed, at)
        case Ejection(node, is_total):
            after = _ejection(breaker, node, is_total, at)
        case Lost(node):
            after = _lost(breaker, node)
        case Tick():
            after = breaker
    return _in_time(after, at)


def _reported(breaker: Breaker, node: str, count: Count, confirmed: bool, at: float) -> Breaker:
    before = breaker.views.get(node, View())
    view, failed = _read(before, count, confirmed, at)
    breaker = _with_view(breaker, node, view)
    match breaker.state:
        case "closed":
            return _count(breaker, count.successes, failed, at)
        case "open":
            return breaker
        case "half_open":
            return _try(breaker, node, count, failed, at)


def _read(view: View, count: Count, confirmed: bool, at: float) -> tuple[View, int]:
    """What a report says: the Envoy as it is now, and how many requests failed at the service.

    `errors` alone will not do, for a request that a cap turned away is among them: no more failed than ended without
    success, and whoever leaves early is no error.
    """
    ended = view.in_progress + count.issued - count.in_progress if view.is_heard else count.successes
    balance = view.balance + ended - count.successes
    without_success = max(0, balance - view.settled)
    failed = min(view.errors + count.errors, without_success)
    unended = view.errors + max(0, count.errors - count.dropped) - failed
    after = replace(
        view,
        is_heard=True,
        in_progress=count.in_progress,
        balance=balance,
        settled=max(view.settled, balance),
        errors=max(0, min(unended, count.in_progress)),
        asked_at=at if count.dropped else view.asked_at,
        quiet_reports=view.quiet_reports + 1 if confirmed and not count.in_progress else 0,
    )
    return after, failed + count.unconnected


def _count(breaker: Breaker, successes: int, failed: int, at: float) -> Breaker:
    """Closed: N failures in a row, or too high a rate among N and more, open it."""
    rules = breaker.rules
    kept = tuple(entry for entry in breaker.window if entry[0] > at - WINDOW_SECONDS)
    if successes or failed:
        kept = (*kept, (at, successes, failed))
    in_a_row = 0 if successes else breaker.in_a_row + failed
    breaker = replace(breaker, window=kept, in_a_row=in_a_row)
    if not rules.is_single or not failed:
        return breaker
    if in_a_row >= rules.failures:
        return _open(breaker, at, f"{in_a_row} failures in a row")
    if breaker.asked >= rules.failures and breaker.failed * 100 >= rules.error_rate_percent * breaker.asked:
        return _open(breaker, at, f"{breaker.failed} of {breaker.asked} requests failed")
    return breaker


def _try(breaker: Breaker, node: str, count: Count, failed: int, at: float) -> Breaker:
    """Half-open: a trial that went well closes it, one that failed opens it again.

    Where a report has both, the trial that went well was likely the first: what comes after it is no trial any more.
    """
    view = breaker.views[node]
    is_tried = view.has_tried or count.issued > 0
    if is_tried and count.successes:
        # Its Envoy lets requests through, whatever its last gauge said: the next one that says so is news.
        breaker = _with_view(breaker, node, replace(view, is_ejected=False))
        return _close(breaker, at, f"a trial went well, seen by {node}")
    if count.unconnected:
        return _open(breaker, at, f"a trial found no connection, seen by {node}")
    if not is_tried:
        return _with_view(breaker, node, replace(view, before=count.in_progress))
    if failed > view.before:
        return _open(breaker, at, f"a trial failed, seen by {node}")
    return _with_view(breaker, node, replace(view, has_tried=True, before=view.before - failed))


def _ejection(breaker: Breaker, node: str, is_total: bool, at: float) -> Breaker:
    """Only an ejection that is news opens it: another Envoy's may outlast the trial that closed it."""
    view = breaker.views.get(node, View())
    breaker = _with_view(breaker, node, replace(view, is_ejected=is_total))
    if is_total and not view.is_ejected and breaker.state == "closed":
        return _open(breaker, at, f"every endpoint ejected by {node}")
    return breaker


def _lost(breaker: Breaker, node: str) -> Breaker:
    views = {name: view for name, view in breaker.views.items() if name != node}
    rights = {name: right for name, right in breaker.rights.items() if name != node}
    return replace(breaker, views=views, rights=rights, moving=breaker.moving - {node})


def _in_time(breaker: Breaker, at: float) -> Breaker:
    """What time alone brings."""
    if breaker.state == "open" and at >= breaker.until:
        breaker = _half_open(breaker, at)
    if breaker.state != "half_open":
        return breaker
    if not breaker.heard:
        return _by_ejections(breaker, at)
    return _share(breaker, at)


def _by_ejections(breaker: Breaker, at: float) -> Breaker:
    """Nobody reports, so nobody is capped: it is as Envoy's own ejections are."""
    ejecting = [node for node, view in breaker.views.items() if view.is_ejected]
    if ejecting:
        return _open(breaker, at, f"every endpoint ejected by {min(ejecting)}")
    return _close(breaker, at, "nobody reports a failure")


def _share(breaker: Breaker, at: float) -> Breaker:
    """Hand out what nobody holds, and take back what is not used where another Envoy turns somebody away."""
    if breaker.moving:
        still = frozenset(node for node in breaker.moving if breaker.views[node].quiet_reports < SETTLED_REPORTS)
        breaker = replace(breaker, moving=still)
        return breaker if still else _grant(breaker, at)
    if sum(breaker.rights.values()) < breaker.rules.trials:
        return _grant(breaker, at)
    return _take_back(breaker, at)


def _grant(breaker: Breaker, at: float) -> Breaker:
    """First to those who turned somebody away most recently; what is held stays where it is."""
    views = breaker.views
    order = sorted(breaker.heard, key=lambda node: (-views[node].asked_at, node))
    rights = dict(breaker.rights)
    left = breaker.rules.trials - sum(rights.values())
    while left > 0 and order:
        node = min(order, key=lambda name: rights.get(name, 0))  # the first of those with the fewest
        rights[node] = rights.get(node, 0) + 1
        left -= 1
    return replace(breaker, rights=rights, moved_at=at)


def _take_back(breaker: Breaker, at: float) -> Breaker:
    idle = {
        node
        for node, right in breaker.rights.items()
        if right and not breaker.views[node].in_progress and breaker.views[node].asked_at <= breaker.moved_at
    }
    waiting = [node for node in breaker.heard if node not in breaker.rights]
    is_asked = any(breaker.views[node].asked_at > breaker.moved_at for node in waiting)
    if not idle or not is_asked or at < breaker.moved_at + MOVE_SECONDS:
        return breaker
    views = {node: replace(view, quiet_reports=0) if node in idle else view for node, view in breaker.views.items()}
    rights = {node: right for node, right in breaker.rights.items() if node not in idle}
    return replace(breaker, views=views, rights=rights, moving=frozenset(idle))


def _open(breaker: Breaker, at: float, why: str) -> Breaker:
    return _become(breaker, "open", at, why, until=at + breaker.rules.open_seconds)


def _half_open(breaker: Breaker, at: float) -> Breaker:
    views = {node: replace(view, has_tried=False, before=view.in_progress) for node, view in breaker.views.items()}
    return replace(_become(breaker, "half_open", at, "the open time is over"), views=views, moved_at=at)


def _close(breaker: Breaker, at: float, why: str) -> Breaker:
    return _become(breaker, "closed", at, why)


def _become(breaker: Breaker, state: State, at: float, why: str, until: float = 0.0) -> Breaker:
    return replace(
        breaker,
        state=state,
        since=at,
        until=until,
        why=why,
        rights={},
        moving=frozenset(),
        window=(),
        in_a_row=0,
    )


def _with_view(breaker: Breaker, node: str, view: View) -> Breaker:
    return replace(breaker, views={**breaker.views, node: view})
