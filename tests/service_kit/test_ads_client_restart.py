"""The stream of policies, against a control plane of this test's own."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Mapping
from pathlib import Path
from typing import Any

import grpc
import pytest

from envoy_api.envoy.service.discovery.v3 import discovery_pb2
from envoy_api.xds.type.v3 import typed_struct_pb2
from service_kit.ads_client import AdsClient

TYPE_URL = "type.googleapis.com/mgw.policy.v1.RatelimitPolicy"
SERVICE = "envoy.service.discovery.v3.AggregatedDiscoveryService"


class ControlPlane:
    """Sends what the test tells it to, and keeps what it is asked."""

    def __init__(self) -> None:
        self.requests: asyncio.Queue[discovery_pb2.DiscoveryRequest] = asyncio.Queue()
        self.responses: asyncio.Queue[discovery_pb2.DiscoveryResponse] = asyncio.Queue()
        self.port = 0
        self._server: grpc.aio.Server | None = None

    async def start(self) -> None:
        server = self._server = grpc.aio.server()
        stream = grpc.stream_stream_rpc_method_handler(
            self._stream,
            request_deserializer=discovery_pb2.DiscoveryRequest.FromString,
            response_serializer=discovery_pb2.DiscoveryResponse.SerializeToString,
        )
        handlers = grpc.method_handlers_generic_handler(SERVICE, {"StreamAggregatedResources": stream})
        server.add_generic_rpc_handlers((handlers,))
        self.port = server.add_insecure_port(f"127.0.0.1:{self.port}")
        await server.start()

    async def stop(self) -> None:
        if self._server is not None:
            await self._server.stop(None)

    async def _stream(self, requests: AsyncIterator[discovery_pb2.DiscoveryRequest], context: Any) -> None:
        async def read() -> None:
            async for request in requests:
                await self.requests.put(request)

        reading = asyncio.create_task(read())
        try:
            while True:
                await context.write(await self.responses.get())
        finally:
            reading.cancel()

    def send(self, version: str, policy: Mapping[str, Any], type_url: str = TYPE_URL) -> None:
        typed = typed_struct_pb2.TypedStruct(type_url=type_url)
        typed.value.update(policy)
        response = discovery_pb2.DiscoveryResponse(version_info=version, type_url=TYPE_URL, nonce=f"n-{version}")
        response.resources.add().Pack(typed)
        self.responses.put_nowait(response)

    async def asked(self) -> discovery_pb2.DiscoveryRequest:
        return await asyncio.wait_for(self.requests.get(), 5)


@pytest.fixture
async def control_plane() -> AsyncIterator[ControlPlane]:
    plane = ControlPlane()
    await plane.start()
    yield plane
    await plane.stop()


class Service:
    """Takes every policy that has no `bad` in it."""

    def __init__(self) -> None:
        self.policies: list[Mapping[str, Any]] = []

    def on_policy(self, policy: Mapping[str, Any]) -> str | None:
        if "bad" in policy:
            return "bad: not allowed"
        self.policies.append(policy)
        return None


@pytest.fixture
async def service(control_plane: ControlPlane, tmp_path: Path) -> AsyncIterator[Service]:
    service = Service()
    client = AdsClient(
        f"127.0.0.1:{control_plane.port}", "ratelimit-0", TYPE_URL, service.on_policy, tmp_path / "policy.json"
    )
    running = asyncio.create_task(client.run())
    yield service
    running.cancel()
    await asyncio.gather(running, return_exceptions=True)


async def test_first_request(control_plane: ControlPlane, service: Service) -> None:
    """The first request names the node and the type, and no version."""
    asked = await control_plane.asked()

    assert (asked.node.id, asked.type_url, asked.version_info, asked.response_nonce) == (
        "ratelimit-0",
        TYPE_URL,
        "",
        "",
    )


async def test_ack(control_plane: ControlPlane, service: Service, tmp_path: Path) -> None:
    """A policy that can be used is acknowledged and kept on disk, for us alone."""
    await control_plane.asked()
    control_plane.send("v1", {"replicas": 2})
    ack = await control_plane.asked()

    assert (ack.version_info, ack.response_nonce, ack.HasField("error_detail")) == ("v1", "n-v1", False)
    assert service.policies == [{"replicas": 2}]
    kept = tmp_path / "policy.json"
    assert json.loads(kept.read_text())["policy"] == {"replicas": 2}
    assert kept.stat().st_mode & 0o777 == 0o600


async def test_nack(control_plane: ControlPlane, service: Service) -> None:
    """A policy that cannot be used is refused with the reason; the version stays where it was."""
    await control_plane.asked()
    control_plane.send("v1", {"replicas": 2})
    await control_plane.asked()
    control_plane.send("v2", {"bad": True})
    nack = await control_plane.asked()

    assert (nack.version_info, nack.response_nonce, nack.error_detail.message) == ("v1", "n-v2", "bad: not allowed")


async def test_wrong_type_inside(control_plane: ControlPlane, service: Service) -> None:
    """A resource of another type is refused."""
    await control_plane.asked()
    control_plane.send("v1", {"replicas": 2}, type_url="type.googleapis.com/mgw.policy.v1.AuthzPolicy")

    assert "AuthzPolicy" in (await control_plane.asked()).error_detail.message


async def test_comes_back(control_plane: ControlPlane, service: Service) -> None:
    """After a break the client asks again within seconds, with the version that it holds."""
    await control_plane.asked()
    control_plane.send("v1", {"replicas": 2})
    await control_plane.asked()
    await control_plane.stop()
    await control_plane.start()

    assert (await control_plane.asked()).version_info == "v1"


async def test_last_good(control_plane: ControlPlane, service: Service, tmp_path: Path) -> None:
    """What was kept is in force at the next start, before there is a control plane."""
    await control_plane.asked()
    control_plane.send("v1", {"replicas": 2})
    await control_plane.asked()
    later = Service()

    assert AdsClient("", "ratelimit-0", TYPE_URL, later.on_policy, tmp_path / "policy.json").load_last_good()
    assert later.policies == [{"replicas": 2}]
    assert not AdsClient("", "ratelimit-0", TYPE_URL, later.on_policy, tmp_path / "none.json").load_last_good()
