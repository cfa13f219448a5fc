"""Envoy's Authorization service: a CheckRequest in, one decision, a CheckResponse out."""

from __future__ import annotations

import json
import math
import time
from collections.abc import Callable, Mapping
from functools import cache

import grpc
import structlog

from authz_service.decision import (
    KEYS_UNAVAILABLE,
    Allow,
    Decision,
    Deny,
    ErrorCode,
    Request,
    RouteRules,
    decide,
    read_rules,
)
from authz_service.enforcement import Enforced, Enforcement
from authz_service.errors import Reason
from authz_service.guesses import Guesses
from authz_service.metrics import Metrics
from authz_service.tokens import ANONYMOUS, KeyWanted, Verified
from envoy_api.envoy.config.core.v3 import base_pb2
from envoy_api.envoy.service.auth.v3 import external_auth_pb2

log = structlog.get_logger()

SERVICE = "envoy.service.auth.v3.Authorization"
ADDRESS = "x-mgw-address"
"""The header with the client's address. The one among the attributes is the connection's, so it may be a proxy's."""
MAX_KNOWN_ROUTES = 10_000
EXTENSIONS = ("auth", "route", "tiers", "scopes", "claims", "providers")

INTERNAL = Deny(ErrorCode.SERVICE_UNAVAILABLE, Reason.INTERNAL)
UNAUTHENTICATED, PERMISSION_DENIED, RESOURCE_EXHAUSTED, UNAVAILABLE = 16, 7, 8, 14  # google.rpc.Code
NO_POLICY = Deny(ErrorCode.SERVICE_UNAVAILABLE, Reason.NO_POLICY)


class AuthorizationServer:
    """The handlers of `Check`. Their only state is a cache of the routes' rules, and wrong API keys.

    `clock` returns Unix seconds.
    """

    def __init__(self, enforcement: Enforcement, metrics: Metrics, *, clock: Callable[[], float] = time.time) -> None:
        self._enforcement, self._metrics, self._clock = enforcement, metrics, clock
        self._rules: dict[tuple[str | None, ...], RouteRules | None] = {}
        self._guesses = Guesses()

    def handler(self) -> grpc.GenericRpcHandler:
        """What a gRPC server needs to serve `Check`."""
        check: grpc.RpcMethodHandler[external_auth_pb2.CheckRequest, bytes] = grpc.unary_unary_rpc_method_handler(
            self.check,
            request_deserializer=external_auth_pb2.CheckRequest.FromString,
            response_serializer=None,  # `render` returns bytes, most of them prepared
        )
        return grpc.method_handlers_generic_handler(SERVICE, {"Check": check})

    def check_now(self, data: bytes) -> bytes | None:
        """The response to a serialized request, without a task.

        None where `check` has to do it: there is no policy yet, a key has to be fetched, or something failed.
        """
        enforced = self._enforcement.current
        if enforced is None:
            return None
        try:
            request = self._read(external_auth_pb2.CheckRequest.FromString(data), enforced)
            decision = self._decided(request, enforced)
            return None if isinstance(decision, KeyWanted) else self._respond(decision)
        except Exception:  # noqa: BLE001 - `check` meets it again, and logs it
            return None

    async def check(self, message: external_auth_pb2.CheckRequest, context: object = None) -> bytes:
        """The serialized response to one request; 503 where deciding failed."""
        try:
            return self._respond(await self._decide(message))
        except Exception:  # one request that crashes is a 503 with our body, not a gRPC error
            log.exception("check.crashed")
            return self._respond(INTERNAL)

    def _respond(self, decision: Decision) -> bytes:
        response = render(decision)
        is_allowed = isinstance(decision, Allow)
        self._metrics.decided(is_allowed, decision.reason)
        if not is_allowed:
            log.debug("check.denied", reason=decision.reason.value)
        return response

    async def _decide(self, message: external_auth_pb2.CheckRequest) -> Decision:
        enforced = self._enforcement.current
        if enforced is None:
            return NO_POLICY
        request = self._read(message, enforced)
        decision = self._decided(request, enforced)
        if isinstance(decision, KeyWanted):
            await decision.provider.keys.refresh(decision.kid)
            enforced = self._enforcement.current or enforced
            decision = self._decided(request, enforced)
        return KEYS_UNAVAILABLE if isinstance(decision, KeyWanted) else decision

    def _decided(self, request: Request, enforced: Enforced) -> Decision | KeyWanted:
        return decide(request, enforced.policy, enforced.verifier, self._guesses, self._clock())

    def _read(self, message: external_auth_pb2.CheckRequest, enforced: Enforced) -> Request:
        attributes = message.attributes
        http = attributes.request.http
        headers: Mapping[str, str] = http.headers
        if not headers and http.HasField("header_map"):  # Envoy's encode_raw_headers
            headers = _join_headers(http.header_map)
        key_header = enforced.policy.api_key_header
        return Request(
            rules=self._read_rules(attributes.context_extensions),
            authorization=headers.get("authorization"),
            api_key=headers.get(key_header) if key_header is not None else None,
            address=headers.get(ADDRESS, ""),
        )

    def _read_rules(self, extensions: Mapping[str, str]) -> RouteRules | None:
        """Routes are few and send the same each time, so their rules are read once."""
        known = self._rules
        key = tuple([extensions.get(name) for name in EXTENSIONS])
        if key in known:
            return known[key]
        if len(known) >= MAX_KNOWN_ROUTES:
            known.clear()
        rules = known[key] = read_rules(extensions)
        if rules is None:
            log.error("route.rules_unreadable", extensions=dict(extensions))
        return rules


def render(decision: object) -> bytes:
    """The serialized CheckResponse of a decision. There is no other place that makes one.

    Envoy takes an empty response for an allow. So whatever is not an Allow is denied, and an allow is never empty.
    """
    if not isinstance(decision, Allow):
        return _deny(decision if isinstance(decision, Deny) else INTERNAL)
    verified = decision.verified
    if verified is None:
        return _ANONYMOUS
    if verified.rendered is None:
        verified.rendered = _allow(verified)
    return verified.rendered


def _allow(verified: Verified) -> bytes:
    response = external_auth_pb2.CheckResponse()
    response.status.code = 0
    response.ok_response.headers.extend(
        [
            _header("x-user-id", verified.subject),
            _header("x-user-tier", verified.tier),
            _header("x-user-issuer", verified.provider),
            _header("x-mgw-caller", f"{verified.tier} {verified.caller}"),  # for Envoy's own filters alone
        ],
    )
    response.dynamic_metadata.update(
        {"subject": verified.subject, "tier": verified.tier, "caller": verified.caller},
    )
    if verified.epoch and math.isfinite(verified.until):  # Envoy may cache this decision for a while
        response.dynamic_metadata.update({"until": verified.until, "epoch": verified.epoch})
    return response.SerializeToString()


def _allow_anonymous() -> bytes:
    response = external_auth_pb2.CheckResponse()
    response.status.code = 0
    response.ok_response.SetInParent()
    response.dynamic_metadata.update({"tier": ANONYMOUS})
    return response.SerializeToString()


def _deny(decision: Deny) -> bytes:
    response = _denial(decision.code, decision.reason, decision.retry_after)
    if decision.verified is None:
        return response
    more = external_auth_pb2.CheckResponse()
    more.dynamic_metadata.update(_of_denied(decision, decision.verified))
    if decision.scopes:
        challenge = f'Bearer error="insufficient_scope", scope="{" ".join(decision.scopes)}"'  # RFC 6750 §3.1
        more.denied_response.headers.append(_header("www-authenticate", challenge))
    return response + more.SerializeToString()  # protobuf: two messages in a row are one, merged


def _of_denied(decision: Deny, verified: Verified) -> dict[str, str]:
    """What the log says of a caller whom we know and do not let pass. No `caller` and no `until`: nothing is charged or
    kept.
    """
    who = {"subject": verified.subject, "tier": verified.tier, "provider": verified.provider}
    who["reason"] = decision.reason.value
    return who | ({"missing": " ".join(decision.missing)} if decision.missing else {})


@cache
def _denial(code: ErrorCode, reason: Reason, retry_after: int | None) -> bytes:
    """Without who was denied, so that there are few."""
    status, grpc_code, message, headers = _ERRORS[code]
    error: dict[str, str | int] = {"code": code.value, "message": _MESSAGES.get(reason, message)}
    if retry_after is not None:
        error["retry_after"], headers = retry_after, {**headers, "retry-after": str(retry_after)}
    response = external_auth_pb2.CheckResponse()
    response.status.code = grpc_code
    response.dynamic_metadata.update({"reason": reason.value})
    denied = response.denied_response
    denied.status.code = status  # type: ignore[assignment]  # Envoy's StatusCode names every number we use
    denied.body = json.dumps({"error": error}, separators=(",", ":"))
    everywhere = {"content-type": "application/json", "x-gateway-error": code.value}
    denied.headers.extend(_header(name, value) for name, value in {**everywhere, **headers}.items())
    return response.SerializeToString()


def _header(name: str, value: str) -> base_pb2.HeaderValueOption:
    """A header that replaces one of the same name, such as a client may have sent."""
    return base_pb2.HeaderValueOption(
        header=base_pb2.HeaderValue(key=name, value=value),
        append_action=base_pb2.HeaderValueOption.OVERWRITE_IF_EXISTS_OR_ADD,
    )


def _join_headers(header_map: base_pb2.HeaderMap) -> dict[str, str]:
    """Repeated headers joined by a comma, as Envoy does it in `headers`."""
    joined: dict[str, str] = {}
    for header in header_map.headers:
        value = header.raw_value.decode("utf-8", "replace") if header.raw_value else header.value
        joined[header.key] = f"{joined[header.key]},{value}" if header.key in joined else value
    return joined


_ERRORS: Mapping[ErrorCode, tuple[int, int, str, Mapping[str, str]]] = {
    ErrorCode.UNAUTHORIZED: (401, UNAUTHENTICATED, "Authentication required", {"www-authenticate": "Bearer"}),
    ErrorCode.AUTH_FAILED: (
        401,
        UNAUTHENTICATED,
        "Invalid or expired token",
        {"www-authenticate": 'Bearer error="invalid_token"'},
    ),
    ErrorCode.FORBIDDEN: (403, PERMISSION_DENIED, "Access denied", {}),
    ErrorCode.RATE_LIMITED: (429, RESOURCE_EXHAUSTED, "Too many requests", {}),
    ErrorCode.SERVICE_UNAVAILABLE: (503, UNAVAILABLE, "Service temporarily unavailable", {"retry-after": "1"}),
}
_MESSAGES: Mapping[Reason, str] = {
    Reason.API_KEY: "Invalid API key",
    Reason.API_KEY_NOT_ACCEPTED: "No API key is accepted here",
}
"""Instead of the code's own."""
_ANONYMOUS = _allow_anonymous()
