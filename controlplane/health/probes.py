"""The probes behind health: HTTP to services, gRPC health to our own two. One replica that is well will do."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine, Iterable
from http.cookiejar import CookieJar, DefaultCookiePolicy
from typing import TYPE_CHECKING, Any

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
        path = service.health_check.path
        return await _any(self._ask(endpoint.url.rstrip("/") + path) for endpoint in service.endpoints)

    async def _ask(self, url: str) -> bool:
        import httpx2  # only here: start-up does not wait for it

        if self._client is None:
            no_cookies = CookieJar(DefaultCookiePolicy(allowed_domains=[]))  # one host may hold several services
            self._client = httpx2.AsyncClient(timeout=PROBE_TIMEOUT_SECONDS, trust_env=False, cookies=no_cookies)
        try:
            async with self._client.stream("GET", url) as response:  # the body is of no interest, and may be endless
                return response.status_code < 500
        except (httpx2.HTTPError, httpx2.InvalidURL):
            return False

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
        return await _any(self._ask(channel) for channel in self._channels)

    async def _ask(self, channel: grpc.aio.Channel) -> bool:
        try:
            answer = await health_pb2_grpc.HealthStub(channel).Check(self._request, timeout=PROBE_TIMEOUT_SECONDS)
        except grpc.aio.AioRpcError:
            return False
        return bool(answer.status == health_pb2.HealthCheckResponse.SERVING)

    async def close(self) -> None:
        """Close the connections."""
        for channel in self._channels:
            await channel.close()


async def _any(asking: Iterable[Coroutine[Any, Any, bool]]) -> bool:
    """Whether one is well. All are asked at once, since one that hangs would hide the others, and none waited for."""
    tasks = [asyncio.ensure_future(each) for each in asking]
    try:
        for answer in asyncio.as_completed(tasks):
            if await answer:
                return True
        return False
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
