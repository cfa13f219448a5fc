"""What the operations on a caller answer. The models fix the order of the fields: a Struct has none."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from controlplane.api.changes import rfc3339
from controlplane.limits_client import Caller


class View(BaseModel):
    """Part of an answer."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class NumbersView(View):
    """Requests a second, requests a minute, and requests at once."""

    rps: int | float
    rpm: int | float
    burst: int | float


class OverrideView(NumbersView):
    """Numbers that are in force instead of the rule's."""

    expires_at: Annotated[str, Field(description="RFC 3339, UTC")]
    instead_of: NumbersView
    reason: str = ""
    by: Annotated[str, Field(description="The operator's name")] = ""


class BurstView(View):
    """The burst rule: how much of it is used. `reset` is Unix time in seconds."""

    limit: int
    used: int
    remaining: int
    reset: int


class RuleView(View):
    """One counter. `limit`, `used`, `remaining` and `reset` are the minute rule's; `reset` is Unix time in seconds."""

    rule: str
    scope: Literal["caller", "global"]
    shadow: bool
    numbers: NumbersView
    limit: int
    used: int
    remaining: int
    reset: int
    burst: BurstView
    override: OverrideView | None


class CallerView(View):
    """A caller's counters after the operation, and what the operation did."""

    caller: str | None
    address: str | None
    tier: str
    tier_assumed: bool
    reset: Annotated[int, Field(description="Counters that had spent something (reset)")] = 0
    granted: Annotated[int, Field(description="Requests given back (grant)")] = 0
    removed: Annotated[bool, Field(description="Whether an override was in force (its removal)")] = False
    exempt: Annotated[bool, Field(description="Whether no rule holds for it")] = False
    rules: list[RuleView]


def view(who: Caller, answer: Mapping[str, Any]) -> CallerView:
    """The answer of the rate-limit service about `who`, for people. What the operation did not do stays unset."""
    done = {key: answer[key] for key in ("reset", "granted", "removed", "exempt") if key in answer}
    return CallerView(
        caller=who.caller,
        address=who.address,
        tier=who.tier,
        tier_assumed=who.is_tier_assumed,
        rules=[_rule(rule) for rule in answer.get("rules", [])],
        **done,
    )


def _rule(told: Mapping[str, Any]) -> RuleView:
    override = told.get("override")
    if override is not None:
        override = OverrideView(
            **{**override, "expires_at": rfc3339(datetime.fromtimestamp(override["expires_at"], UTC))}
        )
    return RuleView(**{**told, "override": override})
