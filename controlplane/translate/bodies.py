"""Bodies: how much of one a route takes, and whether it is held until it is complete.

A body streams to the upstream, and Envoy counts it on the way (`body_size_limit`). Identity and limits are decided
before, on the headers, so nothing of a refused request's body is kept. `body_size_limit` has no settings of a route, so
an inner chain of filters (`filter_chain`), which has, holds it. A changed limit needs no new listener.
"""

from __future__ import annotations

from google.protobuf.message import Message
from google.protobuf.wrappers_pb2 import UInt64Value

from controlplane import protos
from controlplane.config.model import GatewayConfig, Route
from controlplane.translate.headers import Setting

BODY = "mgw.body"
BODY_LIMIT = "envoy.filters.http.body_size_limit"
BUFFER = "envoy.filters.http.buffer"

FilterChain = protos.filter_chain.FilterChain


def body() -> Message:
    """The filter's own settings: it does nothing where neither route nor virtual host says more."""
    return protos.filter_chain.FilterChainConfig()


def most(route: Route, config: GatewayConfig) -> int:
    """The largest body that the route takes, in bytes."""
    return route.max_request_bytes or config.listener.max_request_bytes


def of_all_routes(config: GatewayConfig) -> protos.Any:
    """What holds for a route that says nothing itself."""
    return _chain(config.listener.max_request_bytes, is_held=False)


def of_route(route: Route, config: GatewayConfig) -> protos.Any | None:
    """What a route says itself; None if nothing."""
    if route.max_request_bytes is None and not route.buffer_request:
        return None
    return _chain(most(route, config), route.buffer_request)


def of_no_service() -> protos.Any:
    """No limit: a path that does not exist is 404, however large the body is that nobody reads."""
    return protos.any_of(protos.route_components.FilterConfig(disabled=True))


def route_settings(route: Route, config: GatewayConfig) -> dict[str, str]:
    """What the request filter is told: it rejects a Content-Length that is over the limit before anybody is asked."""
    return {Setting.MAX_BODY: str(most(route, config))}


def kept_for_retries(route: Route, config: GatewayConfig) -> UInt64Value:
    """How much of a body Envoy keeps, to send it again: all that the route takes. Without this only what fits the
    connection's buffer could be sent again (`Route.request_body_buffer_limit`)."""
    return protos.uint64(most(route, config))


def _chain(max_bytes: int, is_held: bool) -> protos.Any:
    """The limit before the buffer: only the limit counts exactly what arrived while others decided."""
    limit = protos.body_size_limit.BodySizeLimit(max_request_bytes=protos.uint64(max_bytes))
    filters = [protos.named(BODY_LIMIT, limit)]
    if is_held:
        filters.append(protos.named(BUFFER, protos.buffer_filter.Buffer(max_request_bytes=protos.uint32(max_bytes))))
    return protos.any_of(protos.filter_chain.FilterChainConfigPerRoute(filter_chain=FilterChain(filters=filters)))
