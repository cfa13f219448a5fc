"""What an operator does to a caller's counters, on the model and on a real store."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator
from typing import Any

import pytest

from ratelimit_service.counters.memory import MemoryCounters
from ratelimit_service.descriptors import Descriptor
from ratelimit_service.errors import OperationRejected
from ratelimit_service.leases import SPAN_US
from ratelimit_service.limiter import Decision, Limiter
from ratelimit_service.limits import Charge, Limit, Override, Reading, Rule
from ratelimit_service.operations import Operations
from ratelimit_service.policy import Plan, read_policy

WIDE = {"rps": 1000, "burst": 1000}
POLICY: dict[str, Any] = {
    "tiers": {"anonymous": WIDE | {"rpm": 10}, "free": WIDE | {"rpm": 100}, "pro": WIDE | {"rpm": 200}},
    "routes": {
        "login": {"limits": WIDE | {"rpm": 5}},
        "search": {"limits": WIDE | {"rpm": 3, "shadow": True}},
        "metered": {"cost": 2},
        "ping": {"cost": 0},
    },
    "global": [
        {"name": "club", "routes": ["club", "login"], **WIDE, "rpm": 30},
        {"name": "all", **WIDE, "rpm": 1000, "shadow": True},
    ],
}
PLAN = read_policy(POLICY)


class Desk:
    """A limiter and an operator on the same counters, as in two replicas."""

    def __init__(self, counters: Any, recorder: Any) -> None:
        self.limiter = Limiter(counters, None, recorder)
        self.operations = Operations(counters)

    async def spend(self, times: int, route: str = "content", caller: str = "p/u1", tier: str = "free") -> int:
        decisions = [await self.ask(route, caller, tier) for _ in range(times)]
        return sum(decision.verdict is not None and decision.verdict.allowed for decision in decisions)

    async def ask(self, route: str = "content", caller: str = "p/u1", tier: str = "free", hits: int = 1) -> Decision:
        return await self.limiter.check([Descriptor(route, tier, caller, "10.0.0.1", hits)], PLAN)

    async def tell(self, hits: int, caller: str = "p/u1", route: str = "metered") -> Decision:
        return await self.limiter.check(
            [Descriptor(route, "free", caller, "10.0.0.1", hits, is_post_charge=True)], PLAN
        )

    async def do(self, verb: Any, caller: str = "p/u1", tier: str = "free", plan: Plan = PLAN, **values: Any) -> Any:
        return await self.operations.do(verb, {"caller": caller, "tier": tier} | values, plan)

    async def look(self, rule: str = "tier", caller: str = "p/u1") -> Any:
        return the_rule(await self.do("peek", caller), rule)


def the_rule(told: Any, name: str = "tier") -> Any:
    return next(rule for rule in told["rules"] if rule["rule"] == name)


@pytest.fixture(params=["memory", "redis"])
async def desk(request: pytest.FixtureRequest, recorder: Any) -> AsyncIterator[Desk]:
    if request.param == "memory":
        yield Desk(MemoryCounters(), recorder)
        return
    open_counters: Any = request.getfixturevalue("open_counters")
    async with open_counters(request.getfixturevalue("valkey")) as counters:
        yield Desk(counters, recorder)


async def test_peek(desk: Desk) -> None:
    """Looking tells the numbers of each rule the caller can meet, and spends nothing."""
    await desk.spend(4)
    for _ in range(3):
        told = await desk.do("peek")

    assert [rule["rule"] for rule in told["rules"]] == [
        "tier",
        "global:all",
        "global:club",
        "route:login",
        "route:search",
    ]
    rule = the_rule(told)
    assert (rule["limit"], rule["used"], rule["remaining"], rule["override"]) == (100, 4, 96, None)
    assert (rule["scope"], the_rule(told, "global:club")["scope"]) == ("caller", "global")
    assert [the_rule(told, name)["shadow"] for name in ("tier", "route:search")] == [False, True]


async def test_reset(desk: Desk) -> None:
    """A reset empties every counter that is the caller's alone, or the one that is named; never a shared one."""
    await desk.spend(3, "login")
    await desk.spend(100)

    assert (await desk.do("reset", rule="route:login"))["reset"] == 3
    assert (await desk.look())["used"] == 100
    assert (await desk.do("reset"))["reset"] == 100
    assert await desk.spend(101) == 100
    assert (await desk.look("global:club"))["used"] == 3


async def test_grant(desk: Desk) -> None:
    """Granted requests may be made again, at most as many as were; the caller's bucket has them back as well."""
    await desk.spend(100)

    assert (await desk.do("grant", requests=7))["granted"] == 7
    assert await desk.spend(10) == 7
    told = await desk.do("grant", requests=1000)
    assert (told["granted"], the_rule(told)["used"], the_rule(told)["burst"]["used"]) == (100, 0, 0)


async def test_override(desk: Desk) -> None:
    """Other numbers hold at once, for that caller alone, whatever its tier; what was spent stays spent."""
    await desk.spend(10)
    told = await desk.do(
        "override", rps=1000, rpm=30, burst=1000, expires_in_seconds=60, reason="a crawler", by="editor"
    )

    override = the_rule(told)["override"]
    assert (override["rpm"], override["instead_of"]["rpm"], override["reason"], override["by"]) == (
        30,
        100,
        "a crawler",
        "editor",
    )
    assert (await desk.ask()).verdict.charge.rule.limit.rpm == 30  # type: ignore[union-attr] # there is one
    assert await desk.spend(30, tier="pro") == 19
    assert await desk.spend(101, caller="p/u2") == 100

    assert (await desk.do("override", remove=True))["removed"] is True
    assert await desk.spend(100) == 70
    assert (await desk.do("override", remove=True))["removed"] is False


async def test_override_of_a_route(desk: Desk) -> None:
    """An override is of one rule; the others keep their numbers."""
    await desk.do("override", rps=1000, rpm=8, burst=1000, expires_in_seconds=60, rule="route:login")

    assert await desk.spend(20, "login") == 8
    assert await desk.spend(101) == 100


@pytest.mark.parametrize(
    ("verb", "values", "says"),
    [
        ("grant", {}, "requests: Field required"),
        ("grant", {"requests": 1, "rule": "route:nowhere"}, "no counter 'route:nowhere' of its own"),
        ("reset", {"rule": "global:club"}, "no counter 'global:club' of its own"),
        ("override", {"rps": 1, "rpm": 1, "burst": 1}, "either expires_in_seconds or expires_at"),
        ("override", {"rps": 1, "rpm": 1, "burst": 0, "expires_in_seconds": 1}, "burst: "),
        ("override", {"rps": 1, "rpm": 1, "burst": 1, "expires_at": 1_000_000}, "is over by the store's clock"),
        ("peek", {"caller": "-"}, "name a caller or an address"),
        ("peek", {"requests": 3}, "requests: Extra inputs"),
    ],
)
async def test_refused(desk: Desk, verb: str, values: dict[str, Any], says: str) -> None:
    """What does not fit is refused with the field, and changes nothing."""
    with pytest.raises(OperationRejected, match=says):
        await desk.do(verb, **values)

    assert ((await desk.look())["used"], (await desk.look())["override"]) == (0, None)


async def test_all_or_none_over_rules(desk: Desk) -> None:
    """When the rule that callers share refuses, the caller's own is not charged; and the other way round."""
    assert await desk.spend(40, "club", caller="p/u1") == 30
    assert await desk.spend(5, "club", caller="p/u2") == 0
    assert (await desk.look(caller="p/u2"))["used"] == 0

    await desk.do("grant", requests=30)
    assert await desk.spend(6, "login", caller="p/u3") == 0


async def test_shadow(desk: Desk) -> None:
    """A shadow counts what it would have let pass, tells what it would have refused, and refuses nothing."""
    decisions = [await desk.ask("search") for _ in range(5)]

    assert all(decision.verdict is not None and decision.verdict.allowed for decision in decisions)
    assert [len(decision.shadows) for decision in decisions] == [0, 0, 0, 1, 1]
    assert ((await desk.look("route:search"))["used"], (await desk.look())["used"]) == (3, 5)


async def test_refused_requests_are_no_shadows_business(desk: Desk) -> None:
    """What a real rule refused is charged to no shadow."""
    await desk.spend(103, "content")

    assert (await desk.look("global:all"))["used"] == 100


async def test_late_charge(desk: Desk) -> None:
    """What the answer told is taken, at most to empty, and refuses nobody by itself."""
    assert await desk.spend(1, "metered") == 1
    assert (await desk.tell(40)).verdict is None
    assert (await desk.look())["used"] == 42

    await desk.tell(1000)
    assert (await desk.look())["used"] == 100
    assert await desk.spend(1) == 0


async def test_late_charge_of_nothing(desk: Desk) -> None:
    """A cost of nothing is nothing."""
    await desk.tell(0)

    assert (await desk.look())["used"] == 0


def test_a_renamed_rule_may_keep_its_counter() -> None:
    """A rule counts under its own name, or under the one that it is told to keep."""
    plan = read_policy(POLICY | {"routes": {"sign-in": {"limits": WIDE | {"rpm": 5, "counter": "login"}}}})

    assert plan.route("sign-in").rules("free")[0].name == PLAN.route("login").rules("free")[0].name == "route:login"


@pytest.mark.parametrize(
    "values", [{"rps": 1, "rpm": 1, "burst": 1, "expires_in_seconds": 60}, {"remove": True}], ids=["set", "removed"]
)
async def test_other_numbers_hold_when_they_are_answered(desk: Desk, values: dict[str, Any]) -> None:
    """Leases of the numbers before are over by then."""
    began = time.monotonic()
    await desk.do("override", **values)

    assert time.monotonic() - began >= SPAN_US / 1_000_000


@pytest.mark.parametrize("route", ["content", "ping"])
async def test_a_block(desk: Desk, route: str) -> None:
    """An override of 0 a minute lets nothing pass, not even what costs nothing; the refusal says until when."""
    await desk.do("override", rpm=0, expires_in_seconds=3600)

    refused = (await desk.ask(route)).verdict

    assert refused is not None and not refused.allowed
    assert (refused.kind, refused.charge.rule.limit.rpm) == ("minute", 0)
    assert 3590 < refused.retry_after <= 3600
    told = await desk.look()
    assert (told["limit"], told["remaining"], told["override"]["rpm"]) == (0, 0, 0)
    assert (told["override"]["rps"], told["override"]["burst"]) == (1000, 1000), "the rule's own, where none are said"
    assert await desk.spend(1, caller="p/u2") == 1, "others do not notice"
    await desk.do("override", remove=True)
    assert await desk.spend(1) == 1


def test_a_block_holds_without_the_store() -> None:
    """No replica lets a remainder of its own pass, as it does of a limit that is shared out."""
    counters = MemoryCounters()
    block = Override(Limit(1000, 0, 1000), time.time_ns())
    charge = Charge("t" * 22, Rule("tier", Limit(1000, 100, 1000)), 1)
    counters.observe([charge._replace(hits=0)], 0, [Reading(0, 0, 0, 0, 0, block)])

    (reading,) = counters.decide_share([charge], replicas=3).readings

    assert not reading.passes
