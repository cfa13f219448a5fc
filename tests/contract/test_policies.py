"""What the control plane accepts and translates, the services take: a policy is never the first to be refused there."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any, get_args

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

import authz_service.__main__ as authz_main
import ratelimit_service.__main__ as ratelimit_main
from authz_service.decision import API_KEY_PROVIDER
from authz_service.policy import read_policy as read_authz_policy
from controlplane.config import model, rules
from controlplane.config.model import GatewayConfig
from controlplane.xds import resources as types
from ratelimit_service.policy import read_policy as read_ratelimit_policy
from service_kit.jwk import ALGORITHMS
from tests.support.configs import a_config, default_config, rich_config, values

ReadPolicies = Callable[[GatewayConfig], tuple[dict[str, Any], dict[str, Any]]]
CONFIGS = {"default": default_config, "rich": rich_config, "small": a_config}


@pytest.mark.parametrize("make", CONFIGS.values(), ids=CONFIGS)
def test_the_services_take_what_is_translated(make: Callable[[], GatewayConfig], read_policies: ReadPolicies) -> None:
    """Both policies of each configuration are read without a problem, through the very message that carries them."""
    config = make()
    authz, ratelimit = read_policies(config)

    document = read_authz_policy(authz)
    plan = read_ratelimit_policy(ratelimit)

    assert [provider.name for provider in document.providers] == [provider.name for provider in config.auth.providers]
    assert set(document.tiers) == set(plan.tiers) == set(config.limits.tiers)


def test_type_urls_are_the_same_on_both_sides() -> None:
    """Each service asks for the type that the control plane serves."""
    assert authz_main.TYPE_URL == types.AUTHZ_POLICY
    assert ratelimit_main.TYPE_URL == types.RATELIMIT_POLICY


def test_numbers_arrive_as_they_were_written(read_policies: ReadPolicies) -> None:
    """The limits of each tier, and a route's own, are those of the document."""
    config = rich_config()
    plan = read_ratelimit_policy(read_policies(config)[1])

    for tier, limit in config.limits.tiers.items():
        if isinstance(limit, model.Unlimited):
            assert plan.default.rule(tier) is None
            continue
        found = plan.default.rules(tier)[0].limit
        assert (found.rps, found.rpm, found.burst) == (limit.rps, limit.rpm, limit.burst)
    assert (plan.anonymous_key, plan.default.on_store_failure, plan.replicas) == ("shared", "closed", 1)
    assert plan.route("best").cost == next(route.cost for route in config.routes if route.name == "best") > 1
    assert plan.route("generate").on_store_failure == "open"
    assert plan.route("generate").rules("pro")[0].limit.rpm == 50
    assert plan.route("generate").rules("anonymous")[0].limit.rpm == 10
    assert plan.route("books").rules("free")[0].limit.rpm == 200


def test_the_names_that_both_sides_know() -> None:
    """Algorithms and the provider of API keys have one name."""
    assert set(get_args(model.Algorithm)) <= ALGORITHMS
    assert rules.API_KEYS == API_KEY_PROVIDER


LIMIT = {"rps": 1, "rpm": 1, "burst": 1}
AT_THE_BOUND: dict[str, dict[str, Any]] = {
    "largest limits": {"rps": 1_000_000, "rpm": 1_000_000, "burst": 1_000_000},
    "smallest limits": LIMIT,
}


@pytest.mark.parametrize("limit", AT_THE_BOUND.values(), ids=AT_THE_BOUND)
def test_limits_at_their_bounds(limit: dict[str, int], read_policies: ReadPolicies) -> None:
    """What the document's fields allow at most and at least, the limiter allows too."""
    route = {**values()["routes"][0], "cost": 10_000, "limits": limit, "tier_limits": {"free": limit}}
    config = a_config(limits={"tiers": {"anonymous": limit, "free": limit}}, routes=[route])

    assert read_ratelimit_policy(read_policies(config)[1]).route("all").cost == 10_000


NAME = st.sampled_from(["p", "apikey", "a-1", "x" * 63, "x" * 64, "A", "a/b", "1"])
TEXT = st.one_of(
    st.sampled_from(["", "x", "x" * 256, "x" * 257, "é" * 128, "é" * 129, "x" * 1024, "x" * 1025, "a\nb", "\x85", " "]),
    st.text(max_size=5).filter(lambda text: text.isprintable() or text == ""),
)
NUMBER = st.sampled_from([-1, 0, 1, 60, 300, 301, 3600, 1 << 40, 1 << 60, 10**400])
KEYS = st.sampled_from(
    [
        {"secret": "${JWT_SECRET}"},
        {"secret_file": "/s"},
        {"secret_file": ""},
        {"secrets": [{"secret": "${A}", "kid": "k"}, {"secret_file": "/s"}]},
        {"secrets": [{"secret": "${A}", "kid": ""}]},
        {"jwks": {"keys": [{"kty": "OKP", "n": 10**400}]}},
        {"jwks": {"keys": []}},
        {"jwks_file": "/k"},
        {"jwks_uri": "https://a/" + "x" * 2030},
        {"jwks_uri": "https://a/" + "x" * 2040},
        {"pem": "x" * 65_537},
    ]
)
CLAIM = TEXT | st.sampled_from(["/a", "/a/0/~0~1", "/", "/~", "/a~2", "a~2"])
PROVIDER = st.builds(
    lambda name, keys, more: {"name": name, **keys, **more},
    NAME,
    KEYS,
    st.fixed_dictionaries(
        {"algorithms": st.lists(st.sampled_from([*get_args(model.Algorithm)]), min_size=1, max_size=2)},
        optional={
            "issuer": TEXT,
            "audiences": st.lists(TEXT, max_size=2),
            "leeway_seconds": NUMBER,
            "claims": st.fixed_dictionaries({}, optional={"subject": CLAIM, "tier": CLAIM, "scopes": CLAIM}),
            "on_bad_token": st.sampled_from(["anonymous", "refuse"]),
        },
    ),
)
API_KEY = st.fixed_dictionaries(
    {"name": NAME, "sha256": st.sampled_from(["a" * 64, "b" * 64, "A" * 64]), "subject": TEXT},
    optional={"tier": st.sampled_from(["free", "anonymous", "gone"])},
)
REVOKED = st.fixed_dictionaries({"provider": NAME, "subject": TEXT, "issued_before": NUMBER})
AUTH = st.fixed_dictionaries(
    {"providers": st.lists(PROVIDER, min_size=1, max_size=2)},
    optional={
        "api_keys": st.lists(API_KEY, max_size=2),
        "api_key_header": st.sampled_from(
            ["x-api-key", "authorization", "cookie", "host", "x" * 64, "x" * 65, "a_b", ""]
        ),
        "max_failures_per_minute": st.sampled_from([0, 1, 60, 1000, 1001]),
        "revocations": st.fixed_dictionaries(
            {"jti": st.lists(TEXT, max_size=2), "subjects": st.lists(REVOKED, max_size=2)}
        ),
    },
)


@given(auth=AUTH)
@settings(max_examples=300, deadline=None, suppress_health_check=[*HealthCheck])
def test_authz_takes_whatever_the_control_plane_accepts(auth: dict[str, Any], read_policies: ReadPolicies) -> None:
    """No bound of the document's fields is wider than the service's own: what fails, fails at the operator's door."""
    try:
        config = a_config(auth=copy.deepcopy(auth))
    except ValidationError:
        return
    if rules.check(config):
        return

    document = read_authz_policy(read_policies(config)[0])

    assert len(document.providers) == len(auth["providers"])
    assert len(document.api_keys) == len(auth.get("api_keys", []))


LIMIT_NUMBERS = st.sampled_from([0, 1, 2, 1000, 1_000_000, 1_000_001, 10_000_000])
LIMITS = st.fixed_dictionaries({"rps": LIMIT_NUMBERS, "rpm": LIMIT_NUMBERS, "burst": LIMIT_NUMBERS})
ROUTE_MORE = st.fixed_dictionaries(
    {},
    optional={
        "cost": st.sampled_from([0, 1, 10_000, 10_001]),
        "limits": LIMITS,
        "tier_limits": st.dictionaries(st.sampled_from(["free", "gone"]), LIMITS, max_size=2),
        "on_store_failure": st.sampled_from(["share", "open", "closed"]),
    },
)


@given(tiers=st.dictionaries(st.sampled_from(["anonymous", "free", "x" * 63]), LIMITS, min_size=1), more=ROUTE_MORE)
@settings(max_examples=200, deadline=None, suppress_health_check=[*HealthCheck])
def test_the_limiter_takes_whatever_the_control_plane_accepts(
    tiers: dict[str, Any], more: dict[str, Any], read_policies: ReadPolicies
) -> None:
    """The same for limits."""
    try:
        config = a_config(limits={"tiers": tiers}, routes=[values()["routes"][0] | more])
    except ValidationError:
        return
    if rules.check(config):
        return

    assert set(read_ratelimit_policy(read_policies(config)[1]).tiers) == set(tiers)
