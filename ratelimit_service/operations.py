"""The operations on one caller's counters: look, reset, give back, and other numbers for a while."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Mapping, Sequence
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from ratelimit_service.counters.base import OperableCounters
from ratelimit_service.descriptors import ANONYMOUS, NOBODY, Descriptor, caller_tag
from ratelimit_service.errors import OperationRejected
from ratelimit_service.leases import SPAN_US
from ratelimit_service.limits import MAX_NUMBER, SECOND_US, TOKEN, WINDOW_US, Charge, CounterKey, Limit, Reading, Rule
from ratelimit_service.policy import Count, Plan, Whole

Verb = Literal["peek", "reset", "override", "grant"]
CALLERS_OWN = "tier"
LONGEST_SECONDS = 366 * 24 * 3600
_TICK_SECONDS = 0.01
"""Envoy's clock and an event loop's tick in milliseconds."""
_AT_ONCE = 50
"""Counters read by one script: a store does nothing else meanwhile."""


class Operation(BaseModel):
    """What an operator asks of one caller, named as in a descriptor. Fields that the verb does not use are rejected."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)

    caller: Annotated[str, Field(min_length=1)] = NOBODY
    remote_address: str = ""
    tier: str = ANONYMOUS
    reason: Annotated[str, Field(max_length=1024)] = ""
    by: Annotated[str, Field(max_length=128)] = ""

    @model_validator(mode="after")
    def somebody(self) -> Operation:
        if self.caller == NOBODY and not self.remote_address:
            raise ValueError("name a caller or an address")
        return self


class Reset(Operation):
    """Nothing is spent any more: under one rule, or under all that are the caller's alone."""

    rule: str | None = None


class Grant(Operation):
    """Give back as many of the newest requests."""

    rule: str = CALLERS_OWN
    requests: Count


class SetOverride(Operation):
    """Other numbers, until a moment."""

    rule: str = CALLERS_OWN
    rps: Annotated[float, Field(ge=0.001, le=MAX_NUMBER)] | None = None
    rpm: Annotated[Whole, Field(ge=0, le=MAX_NUMBER)]
    """0 is a block: nothing passes. Then the two others need not be said."""
    burst: Count | None = None
    expires_in_seconds: Annotated[float, Field(gt=0, le=LONGEST_SECONDS)] | None = None
    expires_at: Annotated[float, Field(gt=0, le=1 << 33)] | None = None
    """Unix time."""

    @model_validator(mode="after")
    def one_end(self) -> SetOverride:
        if (self.expires_in_seconds is None) == (self.expires_at is None):
            raise ValueError("give either expires_in_seconds or expires_at")
        return self

    @model_validator(mode="after")
    def all_numbers(self) -> SetOverride:
        if self.rpm and (self.rps is None or self.burst is None):
            raise ValueError("give rps and burst too: only rpm 0, a block, stands alone")
        return self

    def limit(self, instead_of: Limit) -> Limit:
        """The numbers; those that a block does not say are the rule's."""
        return Limit(self.rps or instead_of.rps, self.rpm, self.burst or instead_of.burst)


class RemoveOverride(Operation):
    """Back to the policy's numbers."""

    rule: str = CALLERS_OWN
    remove: Literal[True]


class Operations:
    """Changes the counters that all replicas share, as an operator asks. `plan` is the policy in force."""

    def __init__(self, counters: OperableCounters) -> None:
        self._counters = counters

    async def do(self, verb: Verb, values: Mapping[str, Any], plan: Plan) -> dict[str, Any]:
        """The caller's counters after the operation. OperationRejected says what does not fit."""
        operation = read_operation(verb, values)
        rules = {name: rule for name, rule in plan.all_rules(operation.tier).items() if _concerns(rule, operation)}
        tag = caller_tag(_descriptor(operation), plan.anonymous_key, plan.prefixes)
        done: dict[str, Any] = {}
        match operation:
            case Reset():
                done["reset"] = await self._reset(tag, rules, operation)
                await _leases_end()
            case Grant():
                key = CounterKey(tag, _own(rules, operation.rule).name)
                done["granted"] = await self._counters.operate(key, "grant", operation.requests)
                await _leases_end()
            case SetOverride():
                rule = _own(rules, operation.rule)
                await self._override(CounterKey(tag, rule.name), operation, operation.limit(rule.limit))
                await _leases_end()
            case RemoveOverride():
                key = CounterKey(tag, _own(rules, operation.rule).name)
                done["removed"] = bool(await self._counters.operate(key, "remove"))
                await _leases_end()
        if plan.exempt.has(operation.caller, operation.remote_address):
            done["exempt"] = True
        return done | {"tier_known": operation.tier in plan.tiers, "rules": await self._peek(tag, list(rules.values()))}

    async def _reset(self, tag: str, rules: Mapping[str, Rule], operation: Reset) -> int:
        names = [operation.rule] if operation.rule else [name for name, rule in rules.items() if not rule.shared_tag]
        keys = [CounterKey(tag, _own(rules, name).name) for name in names]
        return sum([await self._counters.operate(key, "reset") for key in keys])

    async def _override(self, key: CounterKey, asked: SetOverride, limit: Limit) -> None:
        until_us = round((asked.expires_at or 0) * SECOND_US)
        lifetime_us = round((asked.expires_in_seconds or 0) * SECOND_US)
        note = json.dumps({"reason": asked.reason, "by": asked.by})
        values = (until_us, lifetime_us, limit.burst, limit.refill, limit.rpm, note)
        if not await self._counters.operate(key, "override", *values):
            raise OperationRejected("expires_at: is over by the store's clock")

    async def _peek(self, tag: str, rules: Sequence[Rule]) -> list[dict[str, Any]]:
        shown = []
        for at in range(0, len(rules), _AT_ONCE):
            charges = [Charge(rule.shared_tag or tag, rule, 0) for rule in rules[at : at + _AT_ONCE]]
            now_us, readings, _ = await self._counters.decide(charges)
            for charge, reading in zip(charges, readings, strict=True):
                note = await self._counters.note(charge.key) if reading.override else ""
                shown.append(show(now_us, charge.rule, reading, note))
        return shown


async def _leases_end() -> None:
    """Wait until the leases and the over-limit times that Envoys hold have ended. They cannot be taken back.

    The store's clock does not matter: how long a lease lives is told as a length, and each part measures it alone.
    """
    await asyncio.sleep(SPAN_US / SECOND_US + _TICK_SECONDS)


def read_operation(verb: Verb, values: Mapping[str, Any]) -> Operation:
    """What is asked; OperationRejected names every field that does not fit."""
    kinds: dict[str, type[Operation]] = {"peek": Operation, "reset": Reset, "grant": Grant, "override": SetOverride}
    kind = RemoveOverride if verb == "override" and "remove" in values else kinds[verb]
    try:
        return kind.model_validate(values)
    except ValidationError as error:
        raise OperationRejected("; ".join(_problem(each) for each in error.errors())) from error


def show(now_us: int, rule: Rule, reading: Reading, note: str) -> dict[str, Any]:
    """One counter, in the words of the response's headers: the minute rule first, the burst rule beside it."""
    limit = reading.limit(rule)
    drained_us = now_us + -(-reading.level // limit.refill)
    return {
        "rule": rule.name,
        "scope": "global" if rule.shared_tag else "caller",
        "shadow": rule.is_shadow,
        "numbers": _numbers(limit),
        "limit": limit.rpm,
        "used": reading.used,
        "remaining": max(0, limit.rpm - reading.used),
        "reset": _unix(reading.oldest_us + WINDOW_US if reading.used else now_us),
        "burst": {
            "limit": limit.burst,
            "used": -(-reading.level // TOKEN),
            "remaining": max(0, (limit.capacity - reading.level) // TOKEN),
            "reset": _unix(drained_us),
        },
        "override": _shown_override(rule, reading, note),
    }


def _shown_override(rule: Rule, reading: Reading, note: str) -> dict[str, Any] | None:
    if reading.override is None:
        return None
    told = json.loads(note) if note else {}
    expiry = {"expires_at": reading.override.until_us / SECOND_US, "instead_of": _numbers(rule.limit)}
    return _numbers(reading.override.limit) | expiry | told


def _numbers(limit: Limit) -> dict[str, float]:
    return {"rps": limit.refill * SECOND_US / TOKEN, "rpm": limit.rpm, "burst": limit.burst}


def _unix(at_us: int) -> int:
    return -(-at_us // SECOND_US)


def _concerns(rule: Rule, operation: Operation) -> bool:
    """What is counted by address alone is seen under the address."""
    return operation.caller == NOBODY or rule.by != "address"


def _own(rules: Mapping[str, Rule], name: str) -> Rule:
    """A rule whose counter is this caller's alone."""
    rule = rules.get(name)
    if rule is None or rule.shared_tag:
        own = ", ".join(sorted(name for name, rule in rules.items() if not rule.shared_tag))
        raise OperationRejected(
            f"rule: the caller has no counter {name!r} of its own, only {own}"
            if own
            else "rule: nothing limits the caller"
        )
    return rule


def _descriptor(operation: Operation) -> Descriptor:
    return Descriptor("", operation.tier, operation.caller, operation.remote_address, 0)


def _problem(error: Any) -> str:
    path = ".".join(str(part) for part in error["loc"])
    message = error["msg"].removeprefix("Value error, ")
    return f"{path}: {message}" if path else message
