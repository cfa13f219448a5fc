"""Quotas: the shares of a limit over the Envoys that spend it."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field
from functools import partial

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ratelimit_service.limits import SECOND_US, WINDOW_US, CounterKey, Limit
from ratelimit_service.quota import (
    FILL_SECONDS,
    HORIZON_US,
    IDLE_REPORTS,
    NOTHING,
    TTL_SECONDS,
    Assignment,
    Bucket,
    Budget,
    Quotas,
    Share,
    in_messages,
    pace,
    split,
)

FREE = Limit(10, 200, 20)
ALICE: Bucket = (("caller", "platform/alice"), ("counter", "-"), ("tier", "free"))
START = 1_000 * SECOND_US
REPORT_US = 5 * SECOND_US


def quotas_of(limit: Limit) -> Quotas:
    """Quotas in which every bucket of a caller draws on one counter."""
    quotas = Quotas()
    quotas.adopt(lambda bucket: Budget(CounterKey(dict(bucket)["caller"], "tier"), limit), START)
    return quotas


def shares(told: list[Assignment]) -> dict[int, Share | None]:
    return {each.stream: each.share for each in told}


@given(st.integers(0, 10**6), st.lists(st.integers(1, 50), min_size=1, max_size=20))
def test_parts_are_whole_and_make_up_the_total(total: int, weights: list[int]) -> None:
    """The parts sum to the total, and each is within one of its exact due."""
    parts = split(total, weights)

    assert sum(parts) == total
    assert all(abs(part - total * weight / sum(weights)) < 1 for part, weight in zip(parts, weights, strict=True))


@given(st.integers(0, 10**6), st.integers(0, 10**7), st.integers(-10, 10**7))
def test_a_paced_share_never_exceeds_its_budget(tokens: int, per_minute: int, budget: int) -> None:
    """Neither its numbers nor what it can let pass until the next report exceed what they may be."""
    share = pace(tokens, per_minute, budget)

    assert share.worst(HORIZON_US) <= max(0, budget)
    assert share.tokens <= tokens and share.per_minute <= per_minute


def test_one_envoy_has_the_whole_limit() -> None:
    """Alone, an Envoy is given the burst and the refill, from its first report on."""
    told = quotas_of(FREE).report(1, ALICE, 1, 0, START)

    assert told == [Assignment(1, ALICE, Share(20, 10 * FILL_SECONDS))]


def test_two_envoys_have_halves() -> None:
    """A second Envoy halves the first one's share in the same moment."""
    quotas = quotas_of(FREE)
    quotas.report(1, ALICE, 1, 0, START)

    told = quotas.report(2, ALICE, 1, 0, START + SECOND_US)

    assert shares(told) == {1: Share(10, 300), 2: Share(10, 300)}


def test_a_share_returns_when_its_envoy_goes() -> None:
    """The Envoy that stays has the whole again at once; what the other may have spent counts as spent."""
    quotas = quotas_of(FREE)
    quotas.report(1, ALICE, 1, 0, START)
    quotas.report(2, ALICE, 1, 0, START)

    told = quotas.leave(2, START + SECOND_US)

    assert shares(told) == {1: Share(20, 600)}


def test_the_last_envoy_may_go() -> None:
    """A counter without Envoys is kept for a minute and then let go."""
    quotas = quotas_of(FREE)
    quotas.report(1, ALICE, 150, 0, START)

    assert quotas.leave(1, START) == []
    quotas.forget_old(START + SECOND_US)
    again = quotas.report(2, ALICE, 0, 0, START + 2 * SECOND_US)
    share = shares(again)[2]
    assert share and share < Share(20, 600), "what was spent stays spent"

    quotas.leave(2, START + 2 * SECOND_US)
    quotas.forget_old(START + 2 * WINDOW_US)
    assert shares(quotas.report(3, ALICE, 0, 0, START + 2 * WINDOW_US)) == {3: Share(20, 600)}


def test_an_unchanged_share_is_renewed_before_it_ends() -> None:
    """Nothing is said at every report, but never is an assignment left to expire."""
    quotas = quotas_of(FREE)
    quotas.report(1, ALICE, 1, 0, START)
    told = [quotas.report(1, ALICE, 10, 0, START + number * REPORT_US) for number in range(1, 5)]

    assert [bool(each) for each in told] == [False, True, False, True]
    assert TTL_SECONDS * SECOND_US > 2 * REPORT_US + HORIZON_US - REPORT_US


def test_a_spent_minute_is_refused_until_it_passes() -> None:
    """With `rpm` reported, the share is nothing; when the minute is over, it is whole again."""
    quotas = quotas_of(FREE)

    assert shares(quotas.report(1, ALICE, 200, 0, START)) == {1: NOTHING}
    assert shares(quotas.report(1, ALICE, 0, 9, START + WINDOW_US + 2 * SECOND_US)) == {1: Share(20, 600)}


def test_a_near_end_of_the_minute_slows_down() -> None:
    """With little left, the share is the part of it that lasts until the next report."""
    told = quotas_of(FREE).report(1, ALICE, 170, 0, START)

    share = shares(told)[1]
    assert share is not None and 0 < share.worst(HORIZON_US) <= 30


def test_a_quiet_envoys_share_goes_to_the_busy_one() -> None:
    """After two reports without a request an Envoy is told to forget the bucket, and the other has all of it."""
    quotas = quotas_of(FREE)
    quotas.report(1, ALICE, 1, 0, START)
    quotas.report(2, ALICE, 1, 0, START)
    told: list[Assignment] = []
    for number in range(1, IDLE_REPORTS + 1):
        told += quotas.report(1, ALICE, 10, 0, START + number * REPORT_US)
        told += quotas.report(2, ALICE, 0, 0, START + number * REPORT_US)

    assert Assignment(2, ALICE, None) in told
    assert told[-1] == Assignment(1, ALICE, Share(20, 600))


def test_the_busier_envoy_has_more() -> None:
    """Shares follow demand, refused requests included, and still make up the limit."""
    quotas = quotas_of(FREE)
    quotas.report(1, ALICE, 1, 0, START)
    quotas.report(2, ALICE, 1, 0, START)
    quotas.report(1, ALICE, 40, 900, START + REPORT_US)

    told = shares(quotas.report(2, ALICE, 2, 0, START + REPORT_US))

    one, two = told[1], told[2]
    assert one and two and one.tokens > two.tokens >= 1
    assert one.tokens + two.tokens <= 20


def test_an_idle_bucket_ends() -> None:
    """Alone, a bucket is forgotten once a minute has passed and it would be full anyway."""
    quotas = quotas_of(FREE)
    quotas.report(1, ALICE, 1, 0, START)
    told = {at: quotas.report(1, ALICE, 0, 0, at) for at in range(START + REPORT_US, START + 66 * SECOND_US, REPORT_US)}

    assert [at for at, answers in told.items() if Assignment(1, ALICE, None) in answers] == [START + 65 * SECOND_US]
    assert len(quotas) == 0


def test_new_numbers_hold_at_once() -> None:
    """A changed limit is told without waiting for a report; what was spent stays spent."""
    quotas = quotas_of(FREE)
    quotas.report(1, ALICE, 60, 0, START)

    told = quotas.adopt(lambda bucket: Budget(CounterKey("platform/alice", "tier"), Limit(5, 80, 10)), START + 1)

    share = shares(told)[1]
    assert share is not None and share.tokens <= 10 and share.worst(HORIZON_US) <= 20


def test_a_bucket_that_moves_to_another_counter_begins_anew() -> None:
    """Where a route gets numbers of its own, Envoy forgets the bucket and its next request opens a new one."""
    quotas = quotas_of(FREE)
    quotas.report(1, ALICE, 1, 0, START)

    told = quotas.adopt(lambda bucket: Budget(CounterKey("elsewhere", "tier"), FREE), START + 1)

    assert told == [Assignment(1, ALICE, None)]
    assert shares(quotas.report(1, ALICE, 1, 0, START + 2)) == {1: Share(20, 600)}


def test_messages_hold_the_latest_word() -> None:
    """Of two assignments for a bucket the later is sent; the others go in messages of the size asked for."""
    told = [Assignment(1, ALICE, Share(number, 1)) for number in range(3)]
    told += [Assignment(1, (("caller", str(number)),), None) for number in range(4)]

    messages = in_messages(told, 2)

    assert [len(message) for message in messages] == [2, 2, 1]
    assert messages[0][0].share == Share(2, 1)


LIMITS = st.builds(Limit, st.integers(1, 60), st.integers(1, 400), st.integers(1, 60))
STEPS = st.lists(
    st.tuples(
        st.sampled_from(["report", "leave", "adopt", "wait"]), st.integers(0, 4), st.integers(0, 80), st.integers(0, 9)
    ),
    max_size=40,
)


def _budget(limit: Limit, _bucket: object) -> Budget:
    return Budget(CounterKey("platform/alice", "tier"), limit)


@given(LIMITS, STEPS)
def test_shares_never_add_up_to_more_than_the_limit(limit: Limit, steps: list[tuple[str, int, int, int]]) -> None:
    """Whatever comes, goes and is reported, what Envoys were last told sums to at most `burst` and `rps`."""
    quotas = quotas_of(limit)
    told: dict[int, Share] = {}
    now_us = START
    for kind, stream, hits, seconds in steps:
        if kind == "report":
            answers = quotas.report(stream, ALICE, hits, seconds, now_us)
        elif kind == "leave":
            told.pop(stream, None)
            answers = quotas.leave(stream, now_us)
        elif kind == "adopt":
            limit = Limit(limit.rps, limit.rpm, max(1, hits))
            answers = quotas.adopt(partial(_budget, limit), now_us)
        else:
            now_us += seconds * SECOND_US
            answers = []
        for answer in answers:
            if answer.share is None:
                told.pop(answer.stream, None)
            else:
                told[answer.stream] = answer.share
        assert sum(share.tokens for share in told.values()) <= limit.burst
        assert sum(share.per_minute for share in told.values()) <= limit.rps * FILL_SECONDS


@dataclass
class SimulatedEnvoy:
    """What Envoy 1.40 does with an assignment: a changed bucket keeps its ratio of tokens, a first one is full."""

    share: Share | None = None
    tokens: float = 0.0
    filled_us: int = 0
    told_us: int = 0
    passed: int = 0
    refused: int = 0
    next_report_us: int = 0
    admitted: list[int] = field(default_factory=list)

    def take(self, share: Share | None, now_us: int) -> None:
        self.fill(now_us)
        ratio = self.tokens / self.share.tokens if self.share and self.share.tokens else 1.0
        if share != self.share:
            self.tokens = int(share.tokens * ratio) if share else 0.0
        self.share, self.told_us, self.filled_us = share, now_us, now_us

    def fill(self, now_us: int) -> None:
        if self.share:
            added = self.share.per_minute * (now_us - self.filled_us) / WINDOW_US
            self.tokens = min(self.share.tokens, self.tokens + added)
        self.filled_us = now_us

    def ask(self, now_us: int) -> None:
        self.fill(now_us)
        if self.tokens >= 1:
            self.tokens -= 1
            self.passed += 1
            self.admitted.append(now_us)
        else:
            self.refused += 1


@settings(max_examples=40, deadline=None)
@given(
    LIMITS,
    st.lists(st.tuples(st.integers(0, 100), st.integers(5, 150), st.integers(0, 12)), min_size=1, max_size=4),
)
def test_no_minute_has_more_than_its_budget(limit: Limit, lives: list[tuple[int, int, int]]) -> None:
    """Envoys that come, ask at their own rates and die: in any 60 s at most `rpm` pass all of them together."""
    quotas = quotas_of(limit)
    envoys: dict[int, SimulatedEnvoy] = {}
    admitted: list[int] = []
    for tick in range(4 * 150):
        now_us = START + tick * SECOND_US // 4
        for number, (born, age, demand) in enumerate(lives):
            if tick == 4 * born:
                envoys[number] = SimulatedEnvoy()
                _tell(envoys, quotas.report(number, ALICE, 0, 0, now_us), now_us)
            elif tick == 4 * (born + age):
                admitted += envoys.pop(number).admitted
                _tell(envoys, quotas.leave(number, now_us), now_us)
            elif number in envoys:
                _live(number, envoys, quotas, demand, now_us)
    for envoy in envoys.values():
        admitted += envoy.admitted
    window: deque[int] = deque()
    for moment in sorted(admitted):
        window.append(moment)
        while window[0] <= moment - WINDOW_US:
            window.popleft()
        assert len(window) <= limit.rpm


def _live(number: int, envoys: dict[int, SimulatedEnvoy], quotas: Quotas, demand: int, now_us: int) -> None:
    envoy = envoys[number]
    if envoy.share is None:  # told to forget: the next request opens the bucket again
        if not demand:
            return
        _tell(envoys, quotas.report(number, ALICE, 0, 0, now_us), now_us)
    for _ in range(demand):
        envoy.ask(now_us)
    if now_us >= envoy.next_report_us:
        passed, refused, envoy.passed, envoy.refused = envoy.passed, envoy.refused, 0, 0
        envoy.next_report_us = now_us + REPORT_US
        _tell(envoys, quotas.report(number, ALICE, passed, refused, now_us), now_us)
    assert envoy.share is None or now_us - envoy.told_us < TTL_SECONDS * SECOND_US, "an assignment expired"


def _tell(envoys: dict[int, SimulatedEnvoy], told: list[Assignment], now_us: int) -> None:
    for each in told:
        envoys[each.stream].take(each.share, now_us)


@pytest.mark.parametrize(("limit", "least"), [(FREE, 0.85), (Limit(50, 1000, 100), 0.85), (Limit(5, 100, 10), 0.8)])
def test_a_busy_caller_gets_most_of_the_minute(limit: Limit, least: float) -> None:
    """The price of reports every five seconds: a caller who always asks is still given most of `rpm`."""
    quotas = quotas_of(limit)
    envoys = {1: SimulatedEnvoy(), 2: SimulatedEnvoy()}
    for number in envoys:
        _tell(envoys, quotas.report(number, ALICE, 0, 0, START), START)
    for tick in range(1, 4 * 300):
        for number in envoys:
            _live(number, envoys, quotas, 20, START + tick * SECOND_US // 4)

    admitted = sum(len(envoy.admitted) for envoy in envoys.values())
    assert admitted >= least * limit.rpm * 5
