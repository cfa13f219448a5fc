"""Both services, made from what the control plane translates, and asked the way Envoy asks."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import jwt
import pytest

import service_kit.ads_client
from authz_service.enforcement import Enforcement
from authz_service.metrics import Metrics as AuthzMetrics
from authz_service.policy import read_policy as read_authz_policy
from authz_service.server import AuthorizationServer
from controlplane import protos
from controlplane.config.model import GatewayConfig
from controlplane.translate import assemble, filters, routes
from controlplane.xds.resources import AUTHZ_POLICY, RATELIMIT_POLICY
from envoy_api.envoy.service.auth.v3 import external_auth_pb2
from envoy_api.envoy.service.discovery.v3 import discovery_pb2
from envoy_api.envoy.service.ratelimit.v3 import rls_pb2
from ratelimit_service.counters.memory import MemoryCounters
from ratelimit_service.limiter import Limiter
from ratelimit_service.metrics import Metrics as RatelimitMetrics
from ratelimit_service.policy import read_policy as read_ratelimit_policy
from ratelimit_service.rate_limit_server import RateLimitServer
from tests.support.configs import TOPOLOGY

SECRET = "a secret of more than sixty-four bytes, which is what HS512 asks for, too"


def policies(config: GatewayConfig) -> tuple[dict[str, Any], dict[str, Any]]:
    """Both policies as the services read them out of a DiscoveryResponse."""
    snapshot = assemble.snapshot(config, TOPOLOGY)
    read = []
    for client, type_url in ((service_kit.ads_client, AUTHZ_POLICY), (service_kit.ads_client, RATELIMIT_POLICY)):
        response = discovery_pb2.DiscoveryResponse(type_url=type_url, version_info=snapshot.version(type_url))
        for resource in snapshot.select(type_url, frozenset()):
            response.resources.add().ParseFromString(resource)
        read.append(client.read_resource(response, type_url))
    return read[0], read[1]


class StandInEnvoy:
    """Envoy's part in between: what one service returns is what the other is asked."""

    def __init__(self, config: GatewayConfig, environment: Mapping[str, str]) -> None:
        self.config = config
        authz_policy, ratelimit_policy = policies(config)
        enforcement = Enforcement(dict(environment), AuthzMetrics())
        enforcement.enforce(read_authz_policy(authz_policy))
        self.authz = AuthorizationServer(enforcement, AuthzMetrics())
        metrics = RatelimitMetrics()
        plan = read_ratelimit_policy(ratelimit_policy)
        self.ratelimit = RateLimitServer(metrics, Limiter(MemoryCounters(), None, metrics), plan)

    def route(self, name: str) -> Any:
        return next(route for route in routes.routes(self.config) if route.name == name)

    def extensions(self, name: str) -> dict[str, str]:
        """What Envoy sends to authz of a route."""
        settings = protos.ext_authz.ExtAuthzPerRoute()
        assert self.route(name).typed_per_filter_config[filters.EXT_AUTHZ].Unpack(settings)
        return dict(settings.check_settings.context_extensions)

    async def check(self, name: str, **headers: str) -> Any:
        """authz's answer to a request on a route."""
        return await self.check_with(self.extensions(name), **headers)

    async def check_with(self, extensions: Mapping[str, str], **headers: str) -> Any:
        """authz's answer to a request on a route that asks this."""
        request = external_auth_pb2.CheckRequest()
        request.attributes.context_extensions.update(extensions)
        request.attributes.request.http.method = "GET"
        for header, value in headers.items():
            request.attributes.request.http.headers[header.replace("_", "-")] = value
        return external_auth_pb2.CheckResponse.FromString(await self.authz.check(request))

    def _rate_limits(self, name: str) -> Any:
        """The route's descriptors: on the route itself, or with the filter where a cost comes with the answer."""
        route = self.route(name)
        per_route = protos.ratelimit_filter.RateLimitPerRoute()
        route.typed_per_filter_config[filters.RATE_LIMIT].Unpack(per_route)
        return route.route.rate_limits or per_route.rate_limits

    def descriptor(
        self, name: str, answer: Any, address: str = "192.0.2.1", lease: str | None = None
    ) -> list[tuple[str, str]]:
        """The entries that Envoy makes of a route's actions and authz's metadata (route.v3.RateLimit.Action).

        `lease` is what the front door says of its last lease.
        """
        metadata = {filters.EXT_AUTHZ: protos.message_to_dict(answer.dynamic_metadata)}
        entries = []
        for action in self._rate_limits(name)[0].actions:
            kind = action.WhichOneof("action_specifier")
            if kind == "generic_key":
                entries.append((action.generic_key.descriptor_key, action.generic_key.descriptor_value))
            elif kind == "metadata":
                (segment,) = action.metadata.metadata_key.path
                found = metadata.get(action.metadata.metadata_key.key, {}).get(segment.key)
                entries.append((action.metadata.descriptor_key, str(found or action.metadata.default_value)))
            elif kind == "header_value_match":  # no lease covers the request
                entries.append((action.header_value_match.descriptor_key, action.header_value_match.descriptor_value))
            elif kind == "request_headers":
                assert action.request_headers.skip_if_absent
                entries += [(action.request_headers.descriptor_key, lease)] if lease is not None else []
            else:
                assert kind == "remote_address"
                entries.append(("remote_address", address))
        return entries

    async def limit(self, entries: list[tuple[str, str]]) -> Any:
        """The rate-limit service's answer."""
        request = rls_pb2.RateLimitRequest(domain=filters.DOMAIN)
        descriptor = request.descriptors.add()
        for key, value in entries:
            descriptor.entries.add(key=key, value=value)
        return await self.ratelimit.should_rate_limit(request)


@pytest.fixture
def a_gateway(tmp_path: Path) -> Callable[[GatewayConfig], StandInEnvoy]:
    def make(config: GatewayConfig) -> StandInEnvoy:
        return StandInEnvoy(config, {"JWT_SECRET": SECRET})

    return make


@pytest.fixture(scope="session")
def read_policies() -> Callable[[GatewayConfig], tuple[dict[str, Any], dict[str, Any]]]:
    return policies


@pytest.fixture(scope="session")
def bearer() -> Callable[..., str]:
    """An Authorization header with a good token of the provider `platform`."""

    def make(**claims: Any) -> str:
        token = jwt.encode({"sub": "u1", "exp": 4_000_000_000, **claims}, SECRET, "HS256")
        return f"Bearer {token}"

    return make
