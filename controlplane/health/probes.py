"""The probes behind health: HTTP to services, gRPC health to our own two."""

from __future__ import annotations

from typing import TYPE_CHECKING

import grpc
from grpc_health.v1 import health_pb2, health_pb2_grpc

from controlplane.config.model import Service
from controlplane.health.checker import PROBE_TIMEOUT_SECONDS
from controlplane.topology import Address

if TYPE_CHECKING:
    import httpx2


class ServiceProbe:
    """Asks services for their health_check.path; any endpoint that answers below 500 will do."""

    def __init__(self) -> None:
        self._client: httpx2.AsyncClient | None = None

    async def __call__(self, service: Service) -> bool:
        if service.health_check is None:
            return True
        for endpoint in service.endpoints:
            if await self._ask(endpoint.url.rstrip("/") + service.health_check.path):
                return True
        return False

    async def _ask(self, url: str) -> bool:
        import httpx2  # only here: start-up does not wait for it

        if self._client is None:
            self._client = httpx2.AsyncClient(timeout=PROBE_TIMEOUT_SECONDS, trust_env=False)
        try:
            response = await self._client.get(url)
        except (httpx2.HTTPError, httpx2.InvalidURL):
            return False
        return response.status_code < 500

    async def close(self) -> None:
        """Close the connections."""
        if self._client is not None:
            await self._client.aclose()


class GrpcProbe:
    """Asks replicas over grpc.health.v1; one that is serving will do."""

    def __init__(self, replicas: tuple[Address, ...], service: str = "") -> None:
        self._channels = [grpc.aio.insecure_channel(str(replica)) for replica in replicas]
        self._request = health_pb2.HealthCheckRequest(service=service)

    async def __call__(self) -> bool:
        for channel in self._channels:
            stub = health_pb2_grpc.HealthStub(channel)
            try:
                answer = await stub.Check(self._request, timeout=PROBE_TIMEOUT_SECONDS / 2)
            except grpc.aio.AioRpcError:
                continue
            if answer.status == health_pb2.HealthCheckResponse.SERVING:
                return True
        return False

    async def close(self) -> None:
        """Close the connections."""
        for channel in self._channels:
            await channel.close()
