"""What an operation on a caller answers."""

from __future__ import annotations

from typing import Any

import pytest
from pydantic import ValidationError

from controlplane.api.caller_view import RuleView, view
from controlplane.limits_client import Caller

ADA = Caller("platform/ada", None, "free", is_tier_assumed=False)
NUMBERS = {"rps": 10, "rpm": 200, "burst": 20}
BURST = {"limit": 20, "used": 1, "remaining": 19, "reset": 1_700_000_001}


def told(**others: Any) -> dict[str, Any]:
    """A rule as the rate-limit service tells it, its fields in an order that nobody chose."""
    rule = {"shadow": False, "numbers": NUMBERS, "reset": 1_700_000_060, "burst": BURST, "scope": "caller"}
    return rule | {"used": 1, "remaining": 199, "override": None, "limit": 200, "rule": "tier"} | others


def test_fields_stand_in_one_order_whatever_order_they_came_in() -> None:
    """A person, and a page that shows an answer, read the rule's name first."""
    rule = told()
    turned = dict(reversed(rule.items()))

    answers = [view(ADA, {"rules": [each]}).model_dump_json(exclude_unset=True) for each in (rule, turned)]

    assert answers[0] == answers[1]
    assert list(view(ADA, {"rules": [rule]}).rules[0].model_dump()) == list(RuleView.model_fields)
    assert answers[0].startswith('{"caller":"platform/ada","address":null,"tier":"free","tier_assumed":false,"rules":')
    assert '"rules":[{"rule":"tier",' in answers[0]


@pytest.mark.parametrize("done", [{"reset": 2}, {"granted": 20}, {"removed": True}, {}])
def test_only_what_was_done_is_told(done: dict[str, Any]) -> None:
    """A look says nothing of resets, a reset nothing of grants; what only the service needs is left out."""
    answer = view(ADA, {**done, "tier_known": True, "rules": []}).model_dump(exclude_unset=True)

    assert answer == {"caller": "platform/ada", "address": None, "tier": "free", "tier_assumed": False} | done | {
        "rules": []
    }


def test_an_override_says_until_when_and_who() -> None:
    """The moment is text in UTC, with milliseconds; numbers stay whole where they are."""
    override = {"rpm": 30, "rps": 0.5, "burst": 5, "expires_at": 1_700_000_000.25, "instead_of": NUMBERS}

    rule = view(ADA, {"rules": [told(override=override | {"by": "ops", "reason": "a crawler"})]}).rules[0]

    assert rule.override is not None
    assert rule.override.model_dump() == {
        "rps": 0.5,
        "rpm": 30,
        "burst": 5,
        "expires_at": "2023-11-14T22:13:20.250Z",
        "instead_of": NUMBERS,
        "reason": "a crawler",
        "by": "ops",
    }


def test_a_field_that_nobody_expects_is_noticed() -> None:
    """The service and the model say the same."""
    with pytest.raises(ValidationError, match="surprise"):
        view(ADA, {"rules": [told(surprise=1)]})
