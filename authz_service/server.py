"""Envoy's Authorization service: a CheckRequest in, one decision, a CheckResponse out."""

import json
import math
import time
from collections.abc import Callable, Mapping

import grpc
import structlog

from authz_service.decision import (
    KEYS_UNAVAILABLE,
    Allow,
    Answer,
    Decision,
    Deny,
    Request,
    RouteRules,
    decide,
    read_rules,
)
from authz_service.enforcement import Enforced, Enforcement
from authz_service.errors import Reason
from authz_service.metrics import Decisions
from authz_service.tokens import ANONYMOUS, KeyWanted, Verified
from envoy_api.envoy.config.core.v3 import base_pb2
from envoy_api.envoy.service.auth.v3 import external_auth_pb2

log = structlog.get_logger()

SERVICE = "envoy.service.auth.v3.Authorization"
MAX_KNOWN_ROUTES = 10_000
EXTENSIONS = ("auth", "route", "tiers", "scopes", "claims", "providers")

INTERNAL = Deny(Answer.SERVICE_UNAVAILABLE, Reason.INTERNAL)
UNAUTHENTICATED, PERMISSION_DENIED, UNAVAILABLE = 16, 7, 14  # google.rpc.Code
NO_POLICY = Deny(Answer.SERVICE_UNAVAILABLE, Reason.NO_POLICY)


class AuthorizationServer:
    """Holds no state of its own but the routes' rules as it last read them."""

    def __init__(
        self, enforcement: Enforcement, decisions: Decisions, *, clock: Callable[[], float] = time.time
    ) -> None:
        self._enforcement, self._decisions, self._clock = enforcement, decisions, clock
        self._rules: dict[tuple[str | None, ...], RouteRules | None] = {}

    def handler(self) -> grpc.GenericRpcHandler:
        check: grpc.RpcMethodHandler[external_auth_pb2.CheckRequest, bytes] = grpc.unary_unary_rpc_method_handler(
            self.check,
            request_deserializer=external_auth_pb2.CheckRequest.FromString,
            response_serializer=None,  # `render` hands out bytes: most answers are prepared ones
        )
        return grpc.method_handlers_generic_handler(SERVICE, {"Check": check})

    def check_now(self, data: bytes) -> bytes | None:
        """Answer at once; None where a key has to be asked for first, or anything is out of the ordinary."""
        enforced = self._enforcement.current
        if enforced is None:
            return None
        try:
            request = self._read(external_auth_pb2.CheckRequest.FromString(data), enforced)
            decision = decide(request, enforced.policy, enforced.verifier, self._clock())
            return None if isinstance(decision, KeyWanted) else self._answer(decision)
        except Exception:  # noqa: BLE001 - `check` meets it again, and says so
            return None

    async def check(self, message: external_auth_pb2.CheckRequest, context: object = None) -> bytes:
        try:
            return self._answer(await self._decide(message))
        except Exception:
            log.exception("check.crashed")
            return self._answer(INTERNAL)

    def _answer(self, decision: Decision) -> bytes:
        answer = render(decision)
        if isinstance(decision, Allow):
            self._decisions.count("allow", decision.reason)
        else:
            self._decisions.count("deny", decision.reason)
            log.debug("check.denied", reason=decision.reason.value)
        return answer

    async def _decide(self, message: external_auth_pb2.CheckRequest) -> Decision:
        enforced = self._enforcement.current
        if enforced is None:
            return NO_POLICY
        request = self._read(message, enforced)
        decision = decide(request, enforced.policy, enforced.verifier, self._clock())
        if isinstance(decision, KeyWanted):
            await decision.provider.keys.refresh(decision.kid)
            enforced = self._enforcement.current or enforced
            decision = decide(request, enforced.policy, enforced.verifier, self._clock())
        return KEYS_UNAVAILABLE if isinstance(decision, KeyWanted) else decision

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
        )

    def _read_rules(self, extensions: Mapping[str, str]) -> RouteRules | None:
        """Routes are few and say the same every time, so their rules are read once."""
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
    """Every CheckResponse there is comes from here. Envoy takes an empty one for an allow, so what is not plainly an
    allow is a refusal, and an allow always says something."""
    if not isinstance(decision, Allow):
        answer = decision.answer if isinstance(decision, Deny) else Answer.SERVICE_UNAVAILABLE
        return _REFUSALS[answer]
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
            _header("x-mgw-caller", f"{verified.tier} {verified.caller}"),  # for Envoy's own filters alone
        ],
    )
    response.dynamic_metadata.update(
        {"subject": verified.subject, "tier": verified.tier, "caller": verified.caller},
    )
    if verified.epoch and math.isfinite(verified.until):  # Envoy may keep this answer for a while
        response.dynamic_metadata.update({"until": verified.until, "epoch": verified.epoch})
    return response.SerializeToString()


def _allow_anonymous() -> bytes:
    response = external_auth_pb2.CheckResponse()
    response.status.code = 0
    response.ok_response.SetInParent()
    response.dynamic_metadata.update({"tier": ANONYMOUS})
    return response.SerializeToString()


def _refuse(answer: Answer) -> bytes:
    status, grpc_code, message, headers = _SHAPES[answer]
    response = external_auth_pb2.CheckResponse()
    response.status.code = grpc_code
    denied = response.denied_response
    denied.status.code = status  # type: ignore[assignment]  # Envoy's StatusCode names every number we use
    denied.body = json.dumps({"error": {"code": answer.value, "message": message}}, separators=(",", ":"))
    everywhere = {"content-type": "application/json", "x-gateway-error": answer.value}
    denied.headers.extend(_header(name, value) for name, value in {**everywhere, **headers}.items())
    return response.SerializeToString()


def _header(name: str, value: str) -> base_pb2.HeaderValueOption:
    """Overwrites: what a client sent under this name must not stand beside it."""
    return base_pb2.HeaderValueOption(
        header=base_pb2.HeaderValue(key=name, value=value),
        append_action=base_pb2.HeaderValueOption.OVERWRITE_IF_EXISTS_OR_ADD,
    )


def _join_headers(header_map: base_pb2.HeaderMap) -> dict[str, str]:
    """Repeated headers joined by a comma, as Envoy itself does in `headers`."""
    joined: dict[str, str] = {}
    for header in header_map.headers:
        value = header.raw_value.decode("utf-8", "replace") if header.raw_value else header.value
        joined[header.key] = f"{joined[header.key]},{value}" if header.key in joined else value
    return joined


_SHAPES: Mapping[Answer, tuple[int, int, str, Mapping[str, str]]] = {
    Answer.UNAUTHORIZED: (401, UNAUTHENTICATED, "Authentication required", {"www-authenticate": "Bearer"}),
    Answer.AUTH_FAILED: (
        401,
        UNAUTHENTICATED,
        "Invalid or expired token",
        {"www-authenticate": 'Bearer error="invalid_token"'},
    ),
    Answer.FORBIDDEN: (403, PERMISSION_DENIED, "Access denied", {}),
    Answer.SERVICE_UNAVAILABLE: (503, UNAVAILABLE, "Service temporarily unavailable", {"retry-after": "1"}),
}
_REFUSALS: Mapping[Answer, bytes] = {answer: _refuse(answer) for answer in Answer}
_ANONYMOUS = _allow_anonymous()
