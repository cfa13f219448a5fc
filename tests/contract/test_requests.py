"""A request on its way: what the route tells authz, what authz tells the limiter, and what clients are told."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from typing import Any

import pytest

from authz_service.decision import RouteRules, read_rules
from authz_service.server import ADDRESS as AUTHZ_ADDRESS
from authz_service.server import EXTENSIONS
from authz_service.server import SERVICE as AUTHZ_SERVICE
from controlplane import protos
from controlplane.config.model import GatewayConfig
from controlplane.translate import access_log, cors, filters, local_rate_limit, local_replies, routes
from controlplane.translate.headers import REMOVED_BEFORE_UPSTREAM, Header, ResponseHeader
from envoy_api.envoy.service.auth.v3 import external_auth_pb2
from envoy_api.envoy.service.ratelimit.v3 import rls_pb2
from ratelimit_service import responses as limit_answers
from ratelimit_service.descriptors import ANONYMOUS, DOMAIN, NOBODY, Descriptor, read_descriptor
from ratelimit_service.rate_limit_server import SERVICE as RATELIMIT_SERVICE
from tests.support.configs import default_config, rich_config
from tests.support.early import is_removed

MakeGateway = Callable[[GatewayConfig], Any]
Bearer = Callable[..., str]


@pytest.fixture
def gateway(a_gateway: MakeGateway) -> Any:
    return a_gateway(default_config())


def test_the_services_are_those_that_envoy_calls() -> None:
    """The gRPC services have the names of Envoy's own API."""
    assert external_auth_pb2.DESCRIPTOR.services_by_name["Authorization"].full_name == AUTHZ_SERVICE
    assert rls_pb2.DESCRIPTOR.services_by_name["RateLimitService"].full_name == RATELIMIT_SERVICE


@pytest.mark.parametrize("config", [default_config(), rich_config()], ids=["default", "rich"])
def test_authz_can_read_what_every_route_says(config: GatewayConfig) -> None:
    """No route says a key that authz does not read, and none is unreadable."""
    for route in config.routes:
        told = routes.authz_context(route)
        assert set(told) <= set(EXTENSIONS)
        assert route.auth == "none" or read_rules(told) is not None


def test_a_routes_conditions_arrive_whole() -> None:
    """What the document says of a route is what authz asks of its callers."""
    read = {route.name: read_rules(routes.authz_context(route)) for route in rich_config().routes}

    assert read["books"] == RouteRules(
        True, tiers=frozenset({"free", "pro"}), scopes=frozenset({"books:read", "admin"}), claims={}, providers=None
    )
    assert read["book-add"] == RouteRules(True, claims={"plan": "gold", "verified": True, "level": 3})
    assert read["odd"] == RouteRules(True, providers=frozenset({"idp", "apikey"}))
    assert read["best"] == RouteRules(False)


async def test_a_verified_caller_is_who_is_charged(gateway: Any, bearer: Bearer) -> None:
    """authz's metadata is where the limiter's descriptor looks; every part of the question has a value."""
    answer = await gateway.check("user-profile", authorization=bearer(tier="pro"))

    entries = gateway.descriptor("user-profile", answer)

    assert entries == [
        ("asked", f"{gateway.ratelimit.plan.epoch}/"),
        ("route", "user-profile"),
        ("tier", "pro"),
        ("caller", "platform/u1"),
        ("remote_address", "192.0.2.1"),
    ]
    lease = f"{gateway.ratelimit.plan.epoch}/"
    assert read_descriptor(entries, 1) == Descriptor("user-profile", "pro", "platform/u1", "192.0.2.1", 1, lease=lease)


async def test_an_anonymous_caller_is_charged_by_address(gateway: Any) -> None:
    """Where authz names nobody, the descriptor says so in the limiter's own words."""
    answer = await gateway.check("genres")

    entries = dict(gateway.descriptor("genres", answer))

    assert (entries["tier"], entries["caller"]) == (ANONYMOUS, NOBODY)
    assert read_descriptor(entries.items(), 1) is not None


async def test_a_route_that_asks_nobody_is_limited_too(a_gateway: MakeGateway) -> None:
    """With `auth: none` authz says nothing; the descriptor is whole all the same."""
    gateway = a_gateway(rich_config_without_files())

    entries = gateway.descriptor("files", external_auth_pb2.CheckResponse())

    lease = f"{gateway.ratelimit.plan.epoch}/files"
    assert read_descriptor(entries, 1) == Descriptor("files", ANONYMOUS, NOBODY, "192.0.2.1", 1, lease=lease)


def rich_config_without_files() -> GatewayConfig:
    """The rich document with the one provider whose key is in the environment."""
    config = rich_config()
    platform = config.auth.providers[0]
    provider = platform.model_copy(update={"secrets": platform.secrets[:1]})
    auth = config.auth.model_copy(update={"providers": [provider]})
    rest = [route for route in config.routes if "idp" not in route.providers]
    revocations = auth.revocations.model_copy(update={"subjects": []})
    return config.model_copy(update={"auth": auth.model_copy(update={"revocations": revocations}), "routes": rest})


def test_the_client_whose_keys_are_counted_is_envoys_word() -> None:
    """The header that authz reads is the one that the script sets, and that no client can send and no upstream gets."""
    assert Header.ADDRESS == AUTHZ_ADDRESS
    assert Header.ADDRESS in REMOVED_BEFORE_UPSTREAM
    assert is_removed(rich_config(), Header.ADDRESS)


async def test_too_many_wrong_keys_look_like_a_limit(a_gateway: MakeGateway, gateway: Any, bearer: Bearer) -> None:
    """authz's 429 has the limiter's body, and none of its headers that describe a limit."""
    guessed = a_gateway(rich_config_without_files())
    header = guessed.config.auth.api_key_header.replace("-", "_")
    for number in range(guessed.config.auth.max_failures_per_minute + 1):
        denied = (await guessed.check("best", **{header: f"guess-{number}"})).denied_response
    of_limiter = (await refusals(gateway, bearer))["limited"]

    assert (denied.status.code, json.loads(denied.body)["error"] | {"retry_after": 0}) == (
        429,
        of_limiter[1]["error"] | {"retry_after": 0},
    )
    described = {limit_answers.LIMIT, limit_answers.REMAINING, limit_answers.RESET, limit_answers.STATE}
    assert not {name.lower() for name in described} & header_values(denied.headers).keys()


async def test_an_api_key_is_a_caller(a_gateway: MakeGateway) -> None:
    """A key in the document's own header stands for its subject: Envoy sends that header, and authz reads it."""
    gateway = a_gateway(rich_config_without_files())
    header = gateway.config.auth.api_key_header

    answer = await gateway.check("best", **{header.replace("-", "_"): "test"})
    anonymous = await gateway.check("best", **{header.replace("-", "_"): "another"})

    assert dict(gateway.descriptor("best", anonymous))["caller"] == NOBODY
    assert dict(gateway.descriptor("best", answer))["caller"] == "apikey/partner:1"


async def test_the_limits_of_the_tier_hold(gateway: Any, bearer: Bearer) -> None:
    """Ten requests pass for an anonymous caller, twenty for a free one; a tier that nobody knows is anonymous."""
    for authorization, burst in (("", 10), (bearer(sub="f", tier="free"), 20), (bearer(sub="g", tier="gold"), 10)):
        answer = await gateway.check("genres", **({"authorization": authorization} if authorization else {}))
        entries = gateway.descriptor("genres", answer)
        codes = [(await gateway.limit(entries)).overall_code for _ in range(burst + 1)]
        assert codes.count(rls_pb2.RateLimitResponse.OK) in {burst, burst + 1}  # one more may have been refilled


async def test_identity_headers_are_those_that_clients_cannot_send(gateway: Any, bearer: Bearer) -> None:
    """What authz sets is what the listener takes from clients; what is for Envoy alone goes before the upstream."""
    answer = await gateway.check("user-profile", authorization=bearer())

    names = [option.header.key for option in answer.ok_response.headers]

    assert sorted(names) == ["x-mgw-caller", "x-user-id", "x-user-issuer", "x-user-tier"]
    assert set(names) & set(REMOVED_BEFORE_UPSTREAM) == {"x-mgw-caller"}
    assert all(is_removed(default_config(), name) for name in names)


def header_values(options: Any) -> dict[str, str]:
    pairs = [(option.header if hasattr(option, "header") else option) for option in options]
    return {pair.key.lower(): pair.value for pair in pairs}


async def refusals(gateway: Any, bearer: Bearer) -> dict[str, tuple[dict[str, str], dict[str, Any]]]:
    """One refusal of each service: headers and body."""
    expired = bearer(exp=1)
    found = {}
    for name, headers in (("none", {}), ("bad", {"authorization": expired})):
        denied = (await gateway.check("user-profile", **headers)).denied_response
        found[name] = header_values(denied.headers), json.loads(denied.body)
    entries = gateway.descriptor("genres", await gateway.check("genres"), "192.0.2.9")
    for _ in range(30):
        limited = await gateway.limit(entries)
    found["limited"] = header_values(limited.response_headers_to_add), json.loads(limited.raw_body)
    return found


async def test_refusals_of_all_parts_look_alike(gateway: Any, bearer: Bearer) -> None:
    """Envoy, authz and the limiter refuse in one shape, and name the code in the one header that the log reads."""
    (named,) = re.findall(r"%RESP\(([^)]*)\)%", str(access_log.FIELDS["error"]))

    for headers, body in (await refusals(gateway, bearer)).values():
        assert headers["content-type"] == "application/json"
        assert headers[named.lower()] == body["error"]["code"]
        assert body["error"].keys() >= {"code", "message"}
    assert named.lower() in routes.OURS_ALONE
    for mapper in local_replies.local_replies("").mappers:
        made = header_values(mapper.headers_to_add)
        text = re.sub(r":%[^%]*%", ":7", mapper.body_format_override.text_format_source.inline_string)
        if "error" in text:
            assert json.loads(text)["error"]["code"] == made[named.lower()]


async def test_the_fallback_limit_rejects_as_the_limiter_does(gateway: Any, bearer: Bearer) -> None:
    """A client cannot tell Envoy's own 429 from the service's."""
    _, body = (await refusals(gateway, bearer))["limited"]
    ours = [
        json.loads(re.sub(r":%[^%]*%", ":7", mapper.body_format_override.text_format_source.inline_string))
        for mapper in local_replies.local_replies("").mappers
        if mapper.status_code.value == 429
    ]

    assert len(ours) == 2
    for each in ours:
        assert each["error"] | {"retry_after": 0} == body["error"] | {"retry_after": 0}


def test_an_upstream_cannot_forge_the_limiters_headers() -> None:
    """Every header that describes limits is taken from upstreams' answers."""
    told = (
        limit_answers.LIMIT,
        limit_answers.REMAINING,
        limit_answers.RESET,
        limit_answers.STATE,
        limit_answers.POLICY,
        limit_answers.ERROR,
    )

    assert {name.lower() for name in told} == set(routes.OURS_ALONE) - {Header.CORRELATION_ID, ResponseHeader.ERROR_ID}
    exposed = {name.lower() for name in cors.EXPOSED}
    assert {name.lower() for name in (*told[:3], limit_answers.RETRY_AFTER)} <= exposed


async def test_the_log_reads_what_the_services_say(gateway: Any, bearer: Bearer) -> None:
    """What the access log shows of a caller and of a rule is what a service sets."""
    verified = (await gateway.check("genres", authorization=bearer())).ok_response
    set_by_authz = {option.header.key for option in verified.headers}
    entries = gateway.descriptor("genres", await gateway.check("genres"), "192.0.2.9")
    told = [protos.message_to_dict((await gateway.limit(entries)).dynamic_metadata) for _ in range(30)]
    formats = " ".join(map(str, access_log.FIELDS.values()))

    shown = set(re.findall(r"'(x-user-[^']*)'", formats))
    assert shown == {"x-user-id", "x-user-tier", "x-user-issuer"} and shown <= set_by_authz
    read = set(re.findall(rf"DYNAMIC_METADATA\({re.escape(filters.RATE_LIMIT)}:(\w+)\)", formats))
    assert "rule" in read
    assert {"rule"} <= {key for each in told for key in each}


async def test_the_log_reads_why_authz_denied(gateway: Any, bearer: Bearer) -> None:
    """What the access log shows of a refused caller is what authz says of one, and nothing that a limiter charges."""
    checks = [
        await gateway.check_with({"auth": "required"} | asked, authorization=bearer(scope="r"))
        for asked in ({"tiers": "pro"}, {"scopes": "r w"}, {"claims": '{"x":1}'})
    ]
    told = {key for check in checks for key in protos.message_to_dict(check.dynamic_metadata)}
    formats = " ".join(map(str, access_log.FIELDS.values()))

    read = set(re.findall(rf"{re.escape(filters.EXT_AUTHZ)}:(\w+)", formats))
    assert read == told == {"subject", "tier", "provider", "reason", "missing"}


async def test_the_fallback_limit_knows_what_the_limiter_decided(gateway: Any) -> None:
    """The mark that turns off the local fallback limit is the one that the limiter sets on what it decided."""
    (decided, *_) = protos.message_to_dict(local_rate_limit._decided())["metadata"]["metadata_key"]["path"]

    answer = await gateway.limit(gateway.descriptor("genres", await gateway.check("genres")))

    assert protos.message_to_dict(answer.dynamic_metadata)[decided["key"]] == "yes"


def test_the_domain_is_the_same_on_both_sides() -> None:
    """Envoy's filter and the service speak of one domain."""
    assert filters.DOMAIN == DOMAIN
