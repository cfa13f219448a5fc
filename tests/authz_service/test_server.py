"""Envoy's side of it: a real gRPC server in this process, asked over a real channel."""

from __future__ import annotations

import hashlib
import json
from collections.abc import AsyncIterator
from typing import Any

import grpc
import pytest
import structlog
from google.protobuf.internal import api_implementation
from google.protobuf.json_format import MessageToDict
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection_pb2, reflection_pb2_grpc

from authz_service import server as server_module
from authz_service.decision import Allow, Deny, ErrorCode
from authz_service.enforcement import Enforcement
from authz_service.errors import Reason
from authz_service.jwks import JwksTimes
from authz_service.metrics import Metrics
from authz_service.policy import read_policy
from authz_service.server import SERVICE, AuthorizationServer, render
from authz_service.tokens import KeyWanted, Verified
from envoy_api.envoy.config.core.v3 import base_pb2
from envoy_api.envoy.service.auth.v3 import external_auth_pb2
from service_kit.grpc_server import GrpcServer

CheckRequest, CheckResponse = external_auth_pb2.CheckRequest, external_auth_pb2.CheckResponse
OVERWRITE = base_pb2.HeaderValueOption.OVERWRITE_IF_EXISTS_OR_ADD


class Rig:
    """The service, and the channel to it."""

    def __init__(self, secret: str, clock: Any) -> None:
        self.metrics = Metrics()
        self.enforcement = Enforcement({"JWT_SECRET": secret}, self.metrics, times=JwksTimes(wait_seconds=2))
        self.server = AuthorizationServer(self.enforcement, self.metrics, clock=clock)
        self.serving = GrpcServer("127.0.0.1:0", [self.server.handler()], [SERVICE])
        self.channel: Any = None

    async def check(self, headers: dict[str, str] | None = None, address: str = "", **extensions: str) -> Any:
        request = CheckRequest()
        request.attributes.request.http.headers.update((headers or {}) | {"x-mgw-address": address})
        request.attributes.context_extensions.update(extensions)
        return await self.send(request)

    async def send(self, request: Any) -> Any:
        call = self.channel.unary_unary(
            f"/{SERVICE}/Check",
            request_serializer=CheckRequest.SerializeToString,
            response_deserializer=CheckResponse.FromString,
        )
        return await call(request, timeout=5)

    async def health(self, service: str = "") -> int:
        response = await health_pb2_grpc.HealthStub(self.channel).Check(health_pb2.HealthCheckRequest(service=service))
        return int(response.status)

    def decisions(self, outcome: str, reason: Reason) -> float | None:
        """How many were counted."""
        labels = {"outcome": outcome, "reason": reason.value}
        return self.metrics.registry.get_sample_value("mgw_authz_decisions_total", labels)


@pytest.fixture
async def idle(secret: str, clock: Any) -> AsyncIterator[Rig]:
    """Serving, with no policy yet."""
    rig = Rig(secret, clock)
    await rig.serving.start()
    async with grpc.aio.insecure_channel(rig.serving.address) as channel:
        rig.channel = channel
        yield rig
    await rig.serving.drain(0)
    await rig.enforcement.close()


@pytest.fixture
async def rig(idle: Rig, a_policy: Any) -> Rig:
    """Serving the default policy."""
    idle.enforcement.enforce(read_policy(a_policy()))
    return idle


def denied(response: Any, status: int, code: str) -> dict[str, str]:
    """Assert the whole shape of a denial; return its headers."""
    assert response.WhichOneof("http_response") == "denied_response"
    assert response.status.code != 0
    assert response.denied_response.status.code == status
    body = json.loads(response.denied_response.body)
    assert list(body) == ["error"]
    assert body["error"]["code"] == code
    assert sorted(body["error"]) == ["code", "message"]
    assert all(option.append_action == OVERWRITE for option in response.denied_response.headers)
    headers = {option.header.key: option.header.value for option in response.denied_response.headers}
    assert headers["content-type"] == "application/json"
    assert headers["x-gateway-error"] == code
    said = MessageToDict(response.dynamic_metadata)
    assert said["reason"] in set(Reason)
    assert said.keys() <= {"reason", "subject", "tier", "provider", "missing"}, (
        "Envoy would charge the caller, or keep the decision"
    )
    return headers


def test_protobuf_runs_on_upb() -> None:
    """The pure Python one is silent and 80 times slower."""
    assert api_implementation.Type() == "upb"


async def test_a_verified_caller(rig: Rig, mint: Any) -> None:
    """Three headers, overwritten, and three fields of metadata; nothing is removed."""
    response = await rig.check({"authorization": f"Bearer {mint(tier='pro')}"}, route="profile", auth="required")

    assert response.WhichOneof("http_response") == "ok_response"
    assert response.status.code == 0
    assert [(o.header.key, o.header.value, o.append_action) for o in response.ok_response.headers] == [
        ("x-user-id", "u1", OVERWRITE),
        ("x-user-tier", "pro", OVERWRITE),
        ("x-user-issuer", "platform", OVERWRITE),
        ("x-mgw-caller", "pro platform/u1", OVERWRITE),
    ]
    assert not response.ok_response.headers_to_remove
    assert MessageToDict(response.dynamic_metadata) == {"subject": "u1", "tier": "pro", "caller": "platform/u1"}


async def test_a_subject_outside_ascii(rig: Rig, mint: Any) -> None:
    """Is handed on as UTF-8."""
    response = await rig.check({"authorization": f"Bearer {mint(sub='Zoë/日本')}"}, auth="required")

    assert response.ok_response.headers[0].header.value == "Zoë/日本"
    assert response.dynamic_metadata["caller"] == "platform/Zoë/日本"


@pytest.mark.parametrize("headers", [{}, {"authorization": "Basic dTpw"}, {"authorization": "Bearer nonsense"}])
async def test_an_anonymous_caller(headers: dict[str, str], rig: Rig) -> None:
    """No identity header at all, and the tier alone as metadata."""
    response = await rig.check(headers, route="search", auth="optional")

    assert response.WhichOneof("http_response") == "ok_response"
    assert not response.ok_response.headers
    assert MessageToDict(response.dynamic_metadata) == {"tier": "anonymous"}


async def test_denials(rig: Rig, mint: Any) -> None:
    """Each in the shape that clients were promised, whatever the reason inside."""
    missing = denied(await rig.check(auth="required"), 401, "UNAUTHORIZED")
    bad = denied(await rig.check({"authorization": "Bearer x"}, auth="required"), 401, "AUTH_FAILED")
    good = {"authorization": f"Bearer {mint()}"}
    forbidden = denied(await rig.check(good, auth="required", tiers="pro"), 403, "FORBIDDEN")
    unknown = denied(await rig.check(good, auth="sometimes"), 503, "SERVICE_UNAVAILABLE")

    assert missing["www-authenticate"] == "Bearer"
    assert bad["www-authenticate"] == 'Bearer error="invalid_token"'
    assert "www-authenticate" not in forbidden
    assert int(unknown["retry-after"]) >= 1


async def test_a_bad_token_is_never_told_why(rig: Rig, mint: Any, now: float) -> None:
    """Expired, forged and malformed look the same to a client, byte for byte; the log is told."""
    tokens = [mint(exp=now), mint(key="x" * 32), "x", mint(sub=...), mint(headers={"crit": ["x"]})]
    responses = [await rig.check({"authorization": f"Bearer {t}"}, auth="required") for t in tokens]

    assert len({response.denied_response.SerializeToString(deterministic=True) for response in responses}) == 1
    assert [MessageToDict(response.dynamic_metadata) for response in responses] == [
        {"reason": reason} for reason in ("expired", "signature", "malformed", "subject", "header_refused")
    ]


@pytest.mark.parametrize(
    ("asked", "challenge", "why"),
    [
        ({"tiers": "pro"}, None, {"reason": "tier_not_allowed"}),
        (
            {"scopes": "w a r"},
            'Bearer error="insufficient_scope", scope="a r w"',
            {"reason": "scope_missing", "missing": "a w"},
        ),
        ({"claims": '{"sub":"u1","x":1,"y":2}'}, None, {"reason": "claim_missing", "missing": "x y"}),
    ],
)
async def test_a_403_says_who_it_was(
    asked: dict[str, str], challenge: str | None, why: dict[str, str], rig: Rig, mint: Any
) -> None:
    """The log is told the caller, and what it lacks; the client which scopes the route asks for (RFC 6750 §3.1)."""
    response = await rig.check({"authorization": f"Bearer {mint(scope='r')}"}, auth="required", **asked)

    assert denied(response, 403, "FORBIDDEN").get("www-authenticate") == challenge
    assert MessageToDict(response.dynamic_metadata) == {"subject": "u1", "tier": "free", "provider": "platform"} | why


@pytest.mark.parametrize(
    ("headers", "asked", "message", "reason"),
    [
        ({"x-api-key": "wrong"}, {}, "Invalid API key", "wrong_api_key"),
        ({"x-api-key": ""}, {}, "Invalid API key", "wrong_api_key"),
        ({"x-api-key": "key-1"}, {"providers": "platform"}, "No API key is accepted here", "api_key_not_accepted"),
        ({"x-api-key": "wrong", "authorization": "Bearer x"}, {}, "Invalid or expired token", "malformed"),
    ],
)
async def test_a_wrong_api_key_says_so(
    headers: dict[str, str], asked: dict[str, str], message: str, reason: str, rig: Rig, a_policy: Any
) -> None:
    """The message is about the credential that was looked at."""
    digest = hashlib.sha256(b"key-1").hexdigest()
    keys = [{"sha256": digest, "subject": "svc", "tier": "pro"}]
    rig.enforcement.enforce(read_policy(a_policy(api_keys=keys, api_key_header="X-API-Key")))

    response = await rig.check(headers, auth="required", **asked)

    assert denied(response, 401, "AUTH_FAILED")
    assert json.loads(response.denied_response.body)["error"]["message"] == message
    assert MessageToDict(response.dynamic_metadata) == {"reason": reason}


async def test_too_many_wrong_keys(rig: Rig, a_policy: Any, clock: Any) -> None:
    """429 as the limiter has it, without the headers that describe a limit; a changed policy forgives nothing."""
    digest = hashlib.sha256(b"key-1").hexdigest()
    keys = {"api_keys": [{"sha256": digest, "subject": "svc", "tier": "pro"}], "api_key_header": "X-API-Key"}
    rig.enforcement.enforce(read_policy(a_policy(**keys, max_failures_per_minute=2.0)))
    for _ in range(2):
        denied(await rig.check({"x-api-key": "x"}, "2001:db8::1", auth="required"), 401, "AUTH_FAILED")
    clock.advance(12.5)
    rig.enforcement.enforce(read_policy(a_policy(**keys, max_failures_per_minute=1.0)))

    response = await rig.check({"x-api-key": "key-1"}, "2001:db8::2", auth="optional")

    assert response.denied_response.status.code == 429
    assert json.loads(response.denied_response.body) == {
        "error": {"code": "RATE_LIMITED", "message": "Too many requests", "retry_after": 48}
    }
    headers = {option.header.key: option.header.value for option in response.denied_response.headers}
    assert headers == {"content-type": "application/json", "x-gateway-error": "RATE_LIMITED", "retry-after": "48"}
    assert MessageToDict(response.dynamic_metadata) == {"reason": "too_many_failures"}
    assert rig.decisions("deny", Reason.TOO_MANY_FAILURES) == 1
    clock.advance(48)
    assert (await rig.check({"x-api-key": "key-1"}, "2001:db8::2", auth="required")).HasField("ok_response")


@pytest.mark.parametrize(
    "extensions",
    [{}, {"auth": ""}, {"auth": "none"}, {"route": "x"}, {"auth": "optional", "claims": "{"}, {"AUTH": "optional"}],
)
async def test_the_default_is_deny(extensions: dict[str, str], rig: Rig, mint: Any) -> None:
    """A route whose policy is absent or unreadable lets nobody through, with a good token neither."""
    for headers in ({}, {"authorization": f"Bearer {mint()}"}):
        denied(await rig.check(headers, **extensions), 503, "SERVICE_UNAVAILABLE")


async def test_an_empty_request_is_denied(rig: Rig) -> None:
    """Nothing in it says that it may pass."""
    denied(await rig.send(CheckRequest()), 503, "SERVICE_UNAVAILABLE")


async def test_before_a_policy_is_known(idle: Rig, mint: Any) -> None:
    """The port is open, every request is denied, and health says so."""
    headers = denied(
        await idle.check({"authorization": f"Bearer {mint()}"}, auth="optional"), 503, "SERVICE_UNAVAILABLE"
    )

    assert "retry-after" in headers
    assert await idle.health() == await idle.health(SERVICE) == health_pb2.HealthCheckResponse.NOT_SERVING
    await idle.serving.set_ready()
    assert await idle.health() == await idle.health(SERVICE) == health_pb2.HealthCheckResponse.SERVING


async def test_an_exception_is_a_denial(rig: Rig, monkeypatch: pytest.MonkeyPatch, mint: Any) -> None:
    """Whatever breaks inside, nobody gets in by it."""

    def broken(*_: object) -> None:
        raise RecursionError("broken")

    for name in ("decide", "read_rules"):
        with monkeypatch.context() as patch:
            patch.setattr(server_module, name, broken)
            response = await rig.check({"authorization": f"Bearer {mint()}"}, auth="optional", route=name)
            denied(response, 503, "SERVICE_UNAVAILABLE")
    assert rig.decisions("deny", Reason.INTERNAL) == 2


async def test_a_response_that_cannot_be_built_is_a_denial(
    rig: Rig, monkeypatch: pytest.MonkeyPatch, mint: Any
) -> None:
    """An allow that breaks half way is no allow."""
    monkeypatch.setattr(server_module, "_allow", lambda verified: 1 / 0)

    response = await rig.check({"authorization": f"Bearer {mint()}"}, auth="required")
    denied(response, 503, "SERVICE_UNAVAILABLE")


@pytest.mark.parametrize(
    "decision", [None, object(), 0, True, "allow", KeyWanted, Allow, Deny(ErrorCode.FORBIDDEN, Reason.CLAIMS)]
)
def test_what_is_not_an_allow_is_rendered_as_a_denial(decision: object) -> None:
    """There is no value that is rendered as an empty message."""
    response = CheckResponse.FromString(render(decision))

    assert response.WhichOneof("http_response") == "denied_response"
    assert response.status.code != 0


def test_every_allow_says_something() -> None:
    """Also the anonymous one: an empty message is an allow to Envoy, so ours are never empty."""
    for verified in (None, Verified("p", "s", "free", 0)):
        response = CheckResponse.FromString(render(Allow(verified, Reason.VERIFIED)))
        assert response.WhichOneof("http_response") == "ok_response"
        assert response.HasField("dynamic_metadata")


async def test_raw_headers_are_read_too(rig: Rig, mint: Any) -> None:
    """Envoy's `encode_raw_headers`; repeated ones count as one with a comma."""
    request = CheckRequest()
    request.attributes.context_extensions["auth"] = "required"
    headers = request.attributes.request.http.header_map.headers
    headers.add(key="authorization", raw_value=f"Bearer {mint()}".encode())
    assert (await rig.send(request)).HasField("ok_response")

    headers.add(key="authorization", value=f"Bearer {mint()}")
    denied(await rig.send(request), 401, "AUTH_FAILED")


async def test_api_keys_come_in_their_header(rig: Rig, a_policy: Any) -> None:
    """As the policy names it; while there are no keys, the header means nothing."""
    digest = hashlib.sha256(b"key-1").hexdigest()
    rig.enforcement.enforce(read_policy(a_policy(api_key_header="x-api-key")))
    denied(await rig.check({"x-api-key": "key-1"}, auth="required"), 401, "UNAUTHORIZED")

    keys = [{"sha256": digest, "subject": "svc", "tier": "enterprise"}]
    rig.enforcement.enforce(read_policy(a_policy(api_keys=keys, api_key_header="X-API-Key")))
    response = await rig.check({"x-api-key": "key-1"}, auth="required")
    assert MessageToDict(response.dynamic_metadata) == {"subject": "svc", "tier": "enterprise", "caller": "apikey/svc"}


async def test_a_new_policy_applies_to_the_next_request(rig: Rig, a_policy: Any, mint: Any) -> None:
    """A revocation needs no wait, cached token or not."""
    headers = {"authorization": f"Bearer {mint(jti='t1')}"}
    assert (await rig.check(headers, auth="required")).HasField("ok_response")

    rig.enforcement.enforce(read_policy(a_policy(revocations={"jti": ["t1"]})))
    denied(await rig.check(headers, auth="required"), 401, "AUTH_FAILED")


async def test_a_cached_caller_expires(rig: Rig, mint: Any, clock: Any, now: float) -> None:
    """To the second."""
    headers = {"authorization": f"Bearer {mint()}"}
    clock.now = now + 59.9
    assert (await rig.check(headers, auth="required")).HasField("ok_response")
    clock.now = now + 60
    denied(await rig.check(headers, auth="required"), 401, "AUTH_FAILED")


async def test_rotation_denies_no_valid_token(
    idle: Rig, a_policy: Any, key_source: Any, private_keys: Any, jwk: Any, mint: Any, clock: Any
) -> None:
    """Under load, from the moment at which the new key is published; and without keys at all it is a 503."""
    import asyncio
    import time

    clock.now = time.time()
    expires = int(clock.now) + 600

    def token(kid: str) -> dict[str, str]:
        signed = mint(key=private_keys["ES256"], algorithm="ES256", headers={"kid": kid}, exp=expires)
        return {"authorization": f"Bearer {signed}"}

    key_source.publish(jwk(private_keys["ES256"], "k1", "ES256"))
    provider = {"secrets": ..., "algorithms": ["ES256"], "jwks_uri": key_source.url}
    idle.enforcement.enforce(read_policy(a_policy(provider)))
    first = await asyncio.gather(*(idle.check(token("k1"), auth="required") for _ in range(50)))

    key_source.publish(jwk(private_keys["ES256"], "k1", "ES256"), jwk(private_keys["ES256"], "k2", "ES256"))
    kids = [kid for _ in range(50) for kid in ("k1", "k2")]
    then = await asyncio.gather(*(idle.check(token(kid), auth="required") for kid in kids))

    assert all(response.HasField("ok_response") for response in [*first, *then])
    # One at the start, at most one for each kid that was unknown.
    assert len(key_source.calls) <= 3
    denied(await idle.check(token("k3"), auth="required"), 401, "AUTH_FAILED")


async def test_a_source_that_never_responded_is_a_503(
    idle: Rig, a_policy: Any, key_source: Any, private_keys: Any, mint: Any
) -> None:
    """On optional routes too: a caller whose identity cannot be told is not made anonymous."""
    key_source.status = 500
    provider = {"secrets": ..., "algorithms": ["ES256"], "jwks_uri": key_source.url}
    idle.enforcement.enforce(read_policy(a_policy(provider)))
    headers = {"authorization": f"Bearer {mint(key=private_keys['ES256'], algorithm='ES256', headers={'kid': 'k'})}"}

    for auth in ("required", "optional"):
        denied(await idle.check(headers, auth=auth), 503, "SERVICE_UNAVAILABLE")
    assert (await idle.check(auth="optional")).HasField("ok_response")


async def test_decisions_are_counted_by_reason(rig: Rig, mint: Any) -> None:
    """In the words of a fixed set."""
    await rig.check({"authorization": f"Bearer {mint()}"}, auth="required")
    await rig.check(auth="required")
    await rig.check({"authorization": "Bearer x"}, auth="optional")

    assert rig.decisions("allow", Reason.VERIFIED) == 1
    assert rig.decisions("deny", Reason.NO_TOKEN) == 1
    assert rig.decisions("allow", Reason.MALFORMED) == 1


async def test_no_token_is_ever_logged(rig: Rig, mint: Any) -> None:
    """Good, bad, or breaking something, at any level."""
    tokens = [mint(), mint(key="x" * 32), "secret-opaque-token"]
    with structlog.testing.capture_logs() as events:
        for token in tokens:
            for extensions in ({"auth": "required"}, {"auth": "optional"}, {}):
                await rig.check({"authorization": f"Bearer {token}", "cookie": "secret-opaque-token"}, **extensions)

    assert "check.denied" in {event["event"] for event in events}
    assert not [token for token in tokens if token in str(events)]


async def test_a_request_that_is_no_message_is_an_error(rig: Rig) -> None:
    """Envoy then uses its status_on_error; never with an allow."""
    call = rig.channel.unary_unary(f"/{SERVICE}/Check")
    with pytest.raises(grpc.aio.AioRpcError):
        await call(b"\xff\xff\xff", timeout=5)


async def test_reflection_lists_the_service(rig: Rig) -> None:
    """So that grpcurl can be used on it."""
    stub = reflection_pb2_grpc.ServerReflectionStub(rig.channel)
    call = stub.ServerReflectionInfo(iter([reflection_pb2.ServerReflectionRequest(list_services="")]))
    responses = [response async for response in call]

    assert SERVICE in {service.name for service in responses[0].list_services_response.service}
