"""leases.lua: what a worker lets pass without asking the rate-limit service, when it asks, and what it reports."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, NamedTuple

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ratelimit_service.leases import read_report
from tests.lua.support.envoy import Headers, Metadata
from tests.lua.support.worker import Worker

TERMS = {
    "x-ratelimit-limit": "5000",
    "x-ratelimit-remaining": "900",
    "x-ratelimit-reset": "1060",
    "ratelimit": '"minute";r=900;t=60',
    "ratelimit-policy": '"burst";q=400;w=2, "minute";q=5000;w=60',
}
OVER = TERMS | {"x-ratelimit-remaining": "0", "ratelimit": '"burst";r=0;t=3'}
ACCOUNT = "\0pro\0idp/u1"


class Report(NamedTuple):
    """`WORKER.WANTED;REPLICA.SERIAL.SPENT;...`, as docs/agreements.md has it."""

    worker: str
    wanted: bool
    grants: list[tuple[str, int, int]]


def read(text: str) -> Report:
    head, *grants = re.findall(r"[^;]+", text)
    worker, wanted = head.split(".")
    parts = [grant.split(".") for grant in grants]
    assert re.fullmatch(r"[0-9a-f]+", worker) and wanted in ("0", "1")
    return Report(worker, wanted == "1", [(replica, int(serial), int(spent)) for replica, serial, spent in parts])


class Request(NamedTuple):
    """A request after the script has seen it."""

    headers: dict[str, str]
    metadata: Metadata
    decided: bool

    @property
    def is_prepaid(self) -> bool:
        return self.decided and self.headers.get("x-mgw-prepaid") == "1"

    @property
    def over_limit(self) -> str | None:
        return self.headers.get("x-mgw-over-limit")

    @property
    def report(self) -> Report | None:
        """What the rate-limit service reads of the worker's leases."""
        text = self.headers.get("x-mgw-lease-report")
        return None if text is None else read(text)


class Leases:
    """A worker, the clock, and the rate-limit service's responses."""

    def __init__(self) -> None:
        self.worker = Worker("leases")
        self.now = 1000.0

    def request(self, account: str = ACCOUNT, limits: str = "e1/") -> Request:
        """One request of the account."""
        headers, metadata = Headers({}), self.worker.metadata()
        decided = self.worker.spend(headers, metadata, limits, account, self.now)
        return Request(headers.values, metadata, decided)

    def busy(self, account: str = ACCOUNT) -> Request:
        """The second of two requests in a row."""
        self.request(account)
        self.now += 0.01
        return self.request(account)

    def respond(self, request: Request, headers: Mapping[str, str] = TERMS, **said: Any) -> dict[str, str]:
        """The response; `said` is the service's metadata. Returns the response's headers."""
        if said:
            request.metadata.values["envoy.filters.http.ratelimit"] = said
        what = self.worker.modules["in_flight"].take(request.metadata)
        response = Headers(headers)
        if what["lease"] is not None:
            self.worker.describe(response, what, self.now)
        elif what["over_limit"] is not None:
            self.worker.describe_over_limit(response, what)
        else:
            self.worker.read_response(response, request.metadata, what)
        return response.values

    def granted(self, requests: int = 6, replica: str = "ab", serial: int = 1, hits: int = 1, ms: int = 100) -> Request:
        """A busy caller asks and gets a lease."""
        asked = self.busy()
        self.respond(asked, lease=f"{replica} {serial} {requests} {hits} {ms}")
        return asked


@pytest.fixture
def leases() -> Leases:
    return Leases()


def test_a_caller_that_seldom_asks_reports_nothing(leases: Leases) -> None:
    """It has no use for a lease, so it is asked about as if there were none."""
    for _ in range(3):
        request = leases.request()
        assert (request.decided, request.report, request.metadata.values) == (False, None, {})
        leases.now += 0.1


def test_a_busy_caller_wants_one_lease(leases: Leases) -> None:
    """Its next requests ask too, but want none while that one may be on its way."""
    first = leases.busy()
    second = leases.request()
    leases.now += 0.11
    leases.request()
    leases.now += 0.01
    late = leases.request()

    assert [each.report and each.report.wanted for each in (first, second, late)] == [True, False, True]
    assert not (first.decided or second.decided or late.decided)


def test_a_lease_pays_until_half_of_it_is_spent(leases: Leases) -> None:
    """Then one request asks for the next lease, and the rest of this one pays meanwhile."""
    leases.granted(requests=6)
    requests = [leases.request() for _ in range(7)]

    assert [each.is_prepaid for each in requests] == [True] * 3 + [False] + [True] * 3
    assert requests[3].report is not None and requests[3].report.wanted
    assert all(each.report is None for each in requests if each.is_prepaid)
    assert not leases.request().decided


def test_the_next_lease_follows_the_first(leases: Leases) -> None:
    """It is begun when the first is spent, so nobody waits."""
    leases.granted(requests=4)
    requests = [leases.request() for _ in range(3)]
    leases.respond(requests[-1], lease="ab 2 2 1 100")
    rest = [leases.request() for _ in range(4)]

    assert [each.is_prepaid for each in requests] == [True, True, False]
    assert [each.is_prepaid for each in rest] == [True, True, True, False]


def test_a_lease_ends(leases: Leases) -> None:
    """So many milliseconds after it was asked for, whatever is left of it."""
    leases.granted(requests=100, ms=50)

    leases.now += 0.049
    assert leases.request().is_prepaid
    leases.now += 0.001
    assert not leases.request().decided


@pytest.mark.parametrize(
    ("account", "limits"), [("\0free\0idp/u1", "e1/"), ("\0pro\0idp/u2", "e1/"), (ACCOUNT, "e2/"), (ACCOUNT, "e1/r")]
)
def test_whose_a_lease_is(leases: Leases, account: str, limits: str) -> None:
    """Another caller, another tier, other limits and a route that charges otherwise have nothing of it."""
    leases.granted()

    assert not leases.request(account, limits).decided
    assert leases.request().is_prepaid


def test_the_response_to_a_prepaid_request(leases: Leases) -> None:
    """It has the headers that the service would have sent, each request so many hits less."""
    leases.granted(requests=8, hits=3)
    told = [leases.respond(leases.request(), {"x-ratelimit-remaining": "an upstream's"}) for _ in range(2)]

    assert [each["x-ratelimit-remaining"] for each in told] == ["897", "894"]
    assert told[1] == TERMS | {"x-ratelimit-remaining": "894", "ratelimit": '"minute";r=894;t=60'}


def test_what_is_told_is_never_negative(leases: Leases) -> None:
    """Nor is the time until the reset, though the response comes late."""
    asked = leases.busy()
    near = {"x-ratelimit-remaining": "1", "ratelimit": '"minute";r=1;t=1'}
    leases.respond(asked, TERMS | near, lease="ab 1 8 3 100")
    request = leases.request()
    leases.now += 5

    assert leases.respond(request)["ratelimit"] == '"minute";r=0;t=0'


@pytest.mark.parametrize("ahead", [-3600, 0, 3600])
def test_waits_are_intervals(leases: Leases, ahead: float) -> None:
    """Whatever this worker's clock shows beside the store's: what is told of waits is what the service said."""
    leases.now += ahead
    leases.granted(requests=8)

    told = leases.respond(leases.request())

    assert (told["ratelimit"], told["x-ratelimit-reset"]) == ('"minute";r=899;t=60', "1060")


@pytest.mark.parametrize("back", [0.05, 3600])
def test_a_clock_that_was_set_back_ends_a_lease(leases: Leases, back: float) -> None:
    """Nothing tells how long it has been held: it could be spent when the store no longer counts it as out."""
    leases.granted(requests=100)
    leases.now += 0.09
    assert leases.request().is_prepaid
    leases.now -= back

    assert not leases.request().decided


@pytest.mark.parametrize("back", [0.05, 3600])
def test_a_clock_that_was_set_back_locks_nobody_out(leases: Leases, back: float) -> None:
    """Who was over the limit is asked about again at once, and told no wait by the old clock."""
    leases.respond(leases.busy(), OVER, over_limit_ms=2500, rule="burst")
    leases.now += 0.09
    assert leases.request().over_limit == "3"
    leases.now -= back

    assert (leases.request().decided, leases.request().over_limit) == (False, None)


def test_a_response_after_the_clock_was_set_back(leases: Leases) -> None:
    """What was asked by the old clock is of no use by the new one."""
    asked, late = leases.busy(), leases.busy("\0pro\0idp/u2")
    leases.now -= 3600
    leases.respond(asked, OVER, over_limit_ms=2500, rule="burst")
    leases.respond(late, lease="ab 1 8 1 100")

    assert not leases.request().decided
    assert not leases.request("\0pro\0idp/u2").decided


def test_the_report_counts_what_was_spent(leases: Leases) -> None:
    """Of each replica of the service, over all its leases, with the last one's serial number."""
    leases.granted(requests=4, replica="ab", serial=1)
    for _ in range(2):
        leases.request()
    leases.now += 0.1
    leases.granted(requests=4, replica="cd", serial=7)
    leases.request()
    leases.now += 0.1
    leases.granted(requests=4, replica="ab", serial=2)
    for _ in range(2):
        leases.request()

    report = leases.request().report

    assert report is not None
    assert report.grants == [("cd", 7, 1), ("ab", 2, 4)]


def test_eight_replicas_at_most(leases: Leases) -> None:
    """The one that granted longest ago is left out."""
    for number in range(9):
        leases.granted(requests=1, replica=f"a{number}")
        leases.now += 0.2

    report = leases.busy().report

    assert report is not None
    assert [replica for replica, _, _ in report.grants] == [f"a{number}" for number in range(1, 9)]


def test_an_account_that_is_over_its_limit(leases: Leases) -> None:
    """Its requests are rejected here with the service's rule and headers, and whole seconds to wait, at least one."""
    leases.respond(leases.busy(), OVER, over_limit_ms=2500, rule="burst")
    leases.now += 0.05
    request = leases.request()

    assert (request.decided, request.over_limit, request.is_prepaid) == (True, "3", False)
    assert request.metadata.values["envoy.filters.http.ratelimit"] == {"rule": "burst"}
    assert leases.respond(request, {}) == OVER


@pytest.mark.parametrize(("ms", "held"), [(2500, 0.1), (40, 0.04)])
def test_how_long_an_account_is_over_its_limit(leases: Leases, ms: int, held: float) -> None:
    """As long as the service said, and 0.1 s at most: an operator's reset takes no longer to be noticed."""
    leases.respond(leases.busy(), OVER, over_limit_ms=ms, rule="burst")

    leases.now += held - 0.001
    assert leases.request().over_limit is not None
    leases.now += 0.002
    again = leases.request()

    assert not again.decided
    assert again.report is not None, "a caller that keeps retrying counts as busy"


HOSTILE = st.one_of(
    st.text(st.characters(max_codepoint=255), max_size=30),
    st.from_regex(r"[0-9a-f]{1,3} -?[0-9]{1,4} [0-9.]{1,3} [0-9]{1,3} [0-9]{1,4} ?", fullmatch=True),
)


@given(HOSTILE)
def test_a_lease_that_cannot_be_read_is_none(text: str) -> None:
    """Nothing passes for a text that the service does not write, and nothing breaks."""
    leases = Leases()
    leases.respond(leases.busy(), lease=text)

    if not re.fullmatch(r"[0-9a-fA-F]+ [0-9]+ [0-9]+ [0-9]+ [0-9]+", text):
        assert not leases.request().decided


def test_a_lease_without_the_limits_headers_is_none(leases: Leases) -> None:
    """What a response says of the limit could not be told."""
    leases.respond(leases.busy(), {}, lease="ab 1 4 1 100")

    assert not leases.request().decided


@given(st.lists(st.tuples(st.sampled_from(["ab", "c0", "1"]), st.integers(0, 10**9), st.integers(1, 6)), max_size=6))
def test_the_service_can_read_every_report(grants: list[tuple[str, int, int]]) -> None:
    """Whatever was granted before, what a worker reports is what the service reads."""
    leases = Leases()
    for replica, serial, requests in grants:
        leases.granted(requests=requests, replica=replica, serial=serial)
        leases.request()
        leases.now += 0.2

    request = leases.busy()
    report = request.report

    assert report is not None
    latest = {replica: serial for replica, serial, _ in grants}
    assert {replica: serial for replica, serial, _ in report.grants} == latest
    assert read_report(request.headers["x-mgw-lease-report"]) is not None


def test_accounts_are_bounded() -> None:
    """Two generations of 20,000: an account that is in use is kept, one that is not is forgotten."""
    leases = Leases()
    leases.granted(requests=100, ms=10**9)
    for number in range(40_001):
        leases.request(f"\0pro\0idp/{number}")
        if number % 10_000 == 0:
            assert leases.request().is_prepaid
    leases.granted(requests=100, ms=10**9)
    for number in range(40_001):
        leases.request(f"\0pro\0idp/{number}")

    assert not leases.request().decided
