"""What does not fit is put out of the way: the rules see all the rest, and find nothing that is not there."""

from __future__ import annotations

import copy
import itertools
from collections.abc import Iterator
from typing import Any

import pytest

from controlplane.config import document, repair, rules
from controlplane.config.document import dotted
from service_kit.bounded_yaml import Path
from tests.support.configs import ENVIRONMENT, rich_text, values

LIMIT = {"rps": 1, "rpm": 10, "burst": 2}
PROVIDER = {"name": "platform", "algorithms": ["HS256"], "secret": "${JWT_SECRET}"}
SERVICE = {"name": "demo", "endpoints": [{"url": "http://10.0.0.1:8081"}]}
ROUTE = {"name": "all", "match": {"path": "/all", "methods": ["GET"]}, "service": "demo"}
LOST = {"name": "lost", "match": {"path": "/lost", "methods": ["GET"]}, "service": "nowhere"}
TIERS = {"anonymous": LIMIT, "free": LIMIT}
RICH = document.resolve(document.read(rich_text()), ENVIRONMENT)


def auth(**changes: Any) -> dict[str, Any]:
    return {"auth": {"providers": [PROVIDER]} | changes}


def limits(**changes: Any) -> dict[str, Any]:
    return {"limits": {"tiers": TIERS} | changes}


UNFIT: dict[str, tuple[dict[str, Any], str, str]] = {
    "unknown key at the top": ({"verison": 1}, "verison", "no such key"),
    "unknown key below": ({"log": {"request": "all"}}, "log.request", "no such key"),
    "a section's value": ({"listener": {"port": "many"}}, "listener.port", "should be a valid integer"),
    "a section": ({"listener": 8080}, "listener", "should be a valid dictionary"),
    "nothing for a section": ({"cors": None}, "cors", "should be a valid dictionary"),
    "a literal secret": (
        auth(providers=[PROVIDER | {"secret": "hush"}]),
        "auth.providers.0.secret",
        "a secret is never written here",
    ),
    "a provider without a key": (
        auth(providers=[{"name": "platform", "algorithms": ["HS256"]}]),
        "auth.providers.0",
        "give exactly one of",
    ),
    "a provider's name": (auth(providers=[PROVIDER | {"name": "P"}]), "auth.providers.0.name", "match pattern"),
    "a provider's tier": (
        auth(providers=[PROVIDER | {"default_tier": 5}]),
        "auth.providers.0.default_tier",
        "should be a valid string",
    ),
    "no provider": (auth(providers=[PROVIDER, None]), "auth.providers.1", "should be a valid dictionary"),
    "an API key": (auth(api_keys=[{"name": "k", "subject": "s"}]), "auth.api_keys.0.sha256", "is required"),
    "who verifies": (auth(verified_by="nobody"), "auth.verified_by", "should be 'authz_service' or 'envoy'"),
    "who enforces": (limits(enforced_by="nobody"), "limits.enforced_by", "should be 'ratelimit_service' or 'envoy'"),
    "a tier": (limits(tiers=TIERS | {"pro": 5}), "limits.tiers.pro", "should be a valid dictionary"),
    "a tier's number": (limits(tiers=TIERS | {"pro": LIMIT | {"rps": -1}}), "limits.tiers.pro.rps", "greater than"),
    "a tier's name": (limits(tiers=TIERS | {"Pro": LIMIT}), "limits.tiers.Pro", "match pattern"),
    "a global rule": (limits(**{"global": [{"name": "g"}, LIMIT | {"name": 1}]}), "limits.global.0.rps", "is required"),
    "a service's name": ({"services": [SERVICE, SERVICE | {"name": "D"}]}, "services.1.name", "match pattern"),
    "the first service's name": ({"services": [SERVICE | {"name": "D"}, SERVICE]}, "services.0.name", "match pattern"),
    "no service": ({"services": [SERVICE, None]}, "services.1", "should be a valid dictionary"),
    "a service's URL": ({"services": [SERVICE, SERVICE | {"name": "d", "endpoints": [{"url": "x"}]}]}, "", "HOST:PORT"),
    "a route's name": ({"routes": [ROUTE | {"name": "A"}]}, "routes.0.name", "match pattern"),
    "a route's service": ({"routes": [ROUTE | {"service": None}]}, "routes.0.service", "should be a valid string"),
    "no route": ({"routes": [None]}, "routes.0", "should be a valid dictionary"),
    "a route's tier": ({"routes": [ROUTE | {"tier_limits": {"Gold": LIMIT}}]}, "routes.0.tier_limits.Gold", "pattern"),
    "two of one route": (
        {"routes": [ROUTE | {"cost": 0, "retries": {"attempts": 1, "of": []}}]},
        "routes.0.retries.of",
        "no such key",
    ),
}


@pytest.mark.parametrize(("changes", "path", "message"), UNFIT.values(), ids=UNFIT)
def test_the_rules_see_the_rest(changes: dict[str, Any], path: str, message: str) -> None:
    """Whatever does not fit, a route to nowhere elsewhere in the document is found, and nothing beside it."""
    given = values(**changes)
    given["routes"] = [*given["routes"], LOST]

    config, findings = repair.shape(given)

    assert any(dotted(place).startswith(path) and message in words for place, words in findings), findings
    assert config is not None
    assert rules.check(config) == [(("routes", len(given["routes"]) - 1, "service"), "no service named 'nowhere'")]


@pytest.mark.parametrize(
    "changes",
    [{"services": []}, {"services": None}, {"limits": None}, {"auth": {}}, {"version": 2}, limits(tiers=[])],
    ids=lambda changes: str(changes)[:30],
)
def test_without_a_sensible_rest_there_is_no_model(changes: dict[str, Any]) -> None:
    """What everything else refers to cannot be put out of the way: what was found stands alone."""
    config, findings = repair.shape(values(**changes))

    assert config is None
    assert [path[0] for path, _ in findings] == list(changes)


@pytest.mark.parametrize("given", [None, [], "text", 5, {}])
def test_what_is_no_document_at_all(given: Any) -> None:
    """Values of any kind give findings and no model."""
    config, findings = repair.shape(given)

    assert (config, bool(findings)) == (None, True)


def test_a_good_document_is_as_it_was() -> None:
    """It has no findings, and nothing of it is put out of the way."""
    config, findings = repair.shape(RICH)

    assert findings == []
    assert config is not None
    assert [route.name for route in config.routes] == [route["name"] for route in RICH["routes"]]


def leaves(value: Any, path: Path = ()) -> Iterator[Path]:
    """The places of everything that is neither a mapping nor a list."""
    children = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else None
    if children is None:
        yield path
    for key, child in children or ():
        yield from leaves(child, (*path, key))


def replaced(path: Path, value: Any) -> Any:
    given: Any = copy.deepcopy(RICH)
    holder = given
    for part in path[:-1]:
        holder = holder[part]
    holder[path[-1]] = value
    return given


LEAVES = [path for path in leaves(RICH) if path[-1] != "name" and path != ("version",)]
"""Others refer to names: without them more is wrong, and is told."""


@pytest.mark.parametrize("section", sorted({str(path[0]) for path in LEAVES}))
def test_no_rule_finds_what_is_not_there(section: str) -> None:
    """With any one value of the rich document unfit, exactly that is told: the rules have nothing to add."""
    for path, junk in itertools.product(LEAVES, ({"no": "such"}, [["no"]])):
        if path[0] == section:
            given = replaced(path, junk)
            before = copy.deepcopy(given)
            config, findings = repair.shape(given)
            assert given == before, f"{path} was changed in place"
            assert all(place[: len(path)] == path or path[: len(place)] == place for place, _ in findings), path
            if findings:
                assert config is not None, path
                assert rules.check(config) == [], path
