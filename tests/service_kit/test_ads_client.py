"""The ADS client against a control plane of a few lines, over real gRPC."""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator, Mapping
from pathlib import Path
from typing import Any

import grpc
import pytest
from google.protobuf import any_pb2
from google.protobuf.json_format import ParseDict

from envoy_api.envoy.service.discovery.v3 import discovery_pb2
from envoy_api.xds.type.v3 import typed_struct_pb2
from service_kit.ads_client import STREAM, AdsClient, read_resource
from tests.support.waiting import until

TYPE_URL = "type.googleapis.com/mgw.policy.v1.AuthzPolicy"


def response(version: str, policy: dict[str, Any], **changes: Any) -> discovery_pb2.DiscoveryResponse:
    typed = typed_struct_pb2.TypedStruct(type_url=changes.pop("inner", TYPE_URL))
    ParseDict(policy, typed.value)
    resource = any_pb2.Any()
    resource.Pack(typed)
    made = discovery_pb2.DiscoveryResponse(version_info=version, type_url=TYPE_URL, nonce=f"nonce-{version}")
    made.resources.extend([resource] * changes.pop("copies", 1))
    for name, value in changes.items():
        setattr(made, name, value)
    return made


class ControlPlane:
    """Sends what it is told to, keeps what it receives."""

    def __init__(self) -> None:
        self.streams = 0
        self.received: asyncio.Queue[discovery_pb2.DiscoveryRequest] = asyncio.Queue()
        self.to_send: asyncio.Queue[discovery_pb2.DiscoveryResponse | None] = asyncio.Queue()
        self.address = ""
        self._server: Any = None

    async def start(self, port: int = 0) -> None:
        self._server = grpc.aio.server(options=[("grpc.so_reuseport", 0)])
        _, _, service, method = ["", *STREAM.split("/")]
        handler = grpc.stream_stream_rpc_method_handler(
            self.stream,
            request_deserializer=discovery_pb2.DiscoveryRequest.FromString,
            response_serializer=discovery_pb2.DiscoveryResponse.SerializeToString,
        )
        self._server.add_generic_rpc_handlers([grpc.method_handlers_generic_handler(service, {method: handler})])
        bound = self._server.add_insecure_port(f"127.0.0.1:{port}")
        assert bound
        self.address = f"127.0.0.1:{bound}"
        await self._server.start()

    async def stop(self) -> None:
        await self._server.stop(0)

    async def stream(self, requests: Any, context: Any) -> AsyncIterator[discovery_pb2.DiscoveryResponse]:
        self.streams += 1

        async def receive() -> None:
            async for request in requests:
                await self.received.put(request)

        task = asyncio.create_task(receive())
        try:
            while (message := await self.to_send.get()) is not None:
                yield message
        finally:
            task.cancel()

    async def next(self) -> discovery_pb2.DiscoveryRequest:
        async with asyncio.timeout(5):
            return await self.received.get()


class Policies:
    """Takes every policy but a bad one."""

    def __init__(self) -> None:
        self.taken: list[Mapping[str, Any]] = []

    def __call__(self, policy: Mapping[str, Any]) -> str | None:
        if policy.get("bad"):
            return "bad: is bad"
        if policy.get("crash"):
            raise RuntimeError("crash")
        self.taken.append(policy)
        return None


@pytest.fixture
async def control_plane() -> AsyncIterator[ControlPlane]:
    made = ControlPlane()
    await made.start()
    yield made
    await made.stop()


@pytest.fixture
def policies() -> Policies:
    return Policies()


@pytest.fixture
async def client(control_plane: ControlPlane, policies: Policies, tmp_path: Path) -> AsyncIterator[AdsClient]:
    made = AdsClient(control_plane.address, "authz-0", TYPE_URL, policies, tmp_path / "state" / "policy.json")
    task = asyncio.create_task(made.run())
    yield made
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)


async def test_it_asks_and_acknowledges(
    control_plane: ControlPlane, client: AdsClient, policies: Policies, tmp_path: Path
) -> None:
    """First without a version; then with version and nonce of what it took, which it also keeps, for itself alone."""
    first = await control_plane.next()
    assert (first.type_url, first.node.id, first.version_info, first.response_nonce) == (TYPE_URL, "authz-0", "", "")

    await control_plane.to_send.put(response("v1", {"tiers": ["free"], "leeway": 0}))
    ack = await control_plane.next()
    assert (ack.type_url, ack.version_info, ack.response_nonce) == (TYPE_URL, "v1", "nonce-v1")
    assert not ack.HasField("error_detail")
    assert policies.taken == [{"tiers": ["free"], "leeway": 0}]
    kept = tmp_path / "state" / "policy.json"
    assert json.loads(kept.read_text())["policy"] == {"tiers": ["free"], "leeway": 0}
    assert kept.stat().st_mode & 0o777 == 0o600
    assert [path.name for path in kept.parent.iterdir()] == ["policy.json"]


@pytest.mark.parametrize(
    ("bad", "message"),
    [
        (response("v2", {"bad": True}), "bad: is bad"),
        (response("v2", {"crash": True}), "internal error: RuntimeError"),
        (response("v2", {}, copies=0), "expected one"),
        (response("v2", {}, copies=2), "expected one"),
        (response("v2", {}, inner="type.googleapis.com/other"), "expected a"),
        (response("v2", {}, type_url="type.googleapis.com/other"), "expected one"),
    ],
)
async def test_what_cannot_be_used_is_rejected(
    bad: Any, message: str, control_plane: ControlPlane, client: AdsClient, policies: Policies, tmp_path: Path
) -> None:
    """With the reason, the nonce, and the version that stays; the kept one stays too; the next good one is taken."""
    await control_plane.next()
    for sent in (response("v1", {"n": 1}), bad, response("v3", {"n": 3})):
        await control_plane.to_send.put(sent)
    await control_plane.next()
    nack, ack = await control_plane.next(), await control_plane.next()

    assert (nack.type_url, nack.version_info, nack.response_nonce, nack.error_detail.code) == (
        TYPE_URL,
        "v1",
        "nonce-v2",
        3,
    )
    assert message in nack.error_detail.message
    assert (ack.version_info, ack.response_nonce) == ("v3", "nonce-v3")
    assert [policy["n"] for policy in policies.taken] == [1, 3]


async def test_it_connects_again(control_plane: ControlPlane, client: AdsClient, policies: Policies) -> None:
    """After the stream ends and after the server goes, quickly, and says which version it has."""
    await control_plane.next()
    await control_plane.to_send.put(response("v1", {"n": 1}))
    await control_plane.next()

    await control_plane.to_send.put(None)
    again = await control_plane.next()
    assert (control_plane.streams, again.version_info, again.response_nonce) == (2, "v1", "")

    port = int(control_plane.address.rpartition(":")[2])
    await control_plane.stop()
    await control_plane.start(port)
    assert (await control_plane.next()).version_info == "v1"


@contextlib.asynccontextmanager
async def closing_every_connection(port: int) -> AsyncIterator[list[object]]:
    """A server that is no control plane: the connections that it took, and closed."""
    taken: list[object] = []

    def close(_reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        taken.append(writer)
        writer.close()

    async with await asyncio.start_server(close, "127.0.0.1", port):
        yield taken


async def test_nobody_there_is_no_end(policies: Policies, control_plane: ControlPlane) -> None:
    """It keeps trying, and takes a cancellation at once."""
    await control_plane.stop()
    port = int(control_plane.address.rpartition(":")[2])
    client = AdsClient(control_plane.address, "authz-0", TYPE_URL, policies, None)
    async with closing_every_connection(port) as connections:
        task = asyncio.create_task(client.run())
        await until(lambda: len(connections) >= 3)
    await control_plane.start(port)
    assert (await control_plane.next()).node.id == "authz-0"

    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
    assert task.cancelled()


@pytest.mark.parametrize(
    ("text", "is_used"),
    [
        ('{"version":"v1","policy":{"n":1}}', True),
        (None, False),
        ("", False),
        ("[]", False),
        ("{}", False),
        ('{"policy":{"bad":true}}', False),
    ],
)
def test_the_last_good_one_starts_it(text: str | None, is_used: bool, policies: Policies, tmp_path: Path) -> None:
    """If it is there, readable, and still good."""
    path = tmp_path / "policy.json"
    if text is not None:
        path.write_text(text)

    assert AdsClient("x:1", "n", TYPE_URL, policies, path).load_last_good() is is_used
    assert policies.taken == ([{"n": 1}] if is_used else [])
    assert AdsClient("x:1", "n", TYPE_URL, policies, None).load_last_good() is False


async def test_what_it_kept_starts_the_next_process(
    control_plane: ControlPlane, client: AdsClient, policies: Policies, tmp_path: Path
) -> None:
    """Before there is a control plane, the last policy that was acknowledged is in force, and not the rejected one."""
    await control_plane.next()
    for sent in (response("v1", {"n": 1}), response("v2", {"bad": True})):
        await control_plane.to_send.put(sent)
        await control_plane.next()
    later = Policies()

    assert AdsClient("", "authz-0", TYPE_URL, later, tmp_path / "state" / "policy.json").load_last_good()
    assert later.taken == [{"n": 1}]


async def test_a_full_disk_costs_no_policy(control_plane: ControlPlane, policies: Policies, tmp_path: Path) -> None:
    """It is in force and acknowledged, only not kept."""
    (tmp_path / "file").write_text("")
    client = AdsClient(control_plane.address, "n", TYPE_URL, policies, tmp_path / "file" / "policy.json")
    task = asyncio.create_task(client.run())
    await control_plane.next()
    await control_plane.to_send.put(response("v1", {"n": 1}))

    assert (await control_plane.next()).version_info == "v1"
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)


def test_a_resource_of_another_kind() -> None:
    """Or bytes that are no message at all."""
    sent = response("v1", {})
    sent.resources[0].type_url = "type.googleapis.com/google.protobuf.Struct"
    with pytest.raises(ValueError, match="expected a"):
        read_resource(sent, TYPE_URL)

    sent = response("v1", {})
    sent.resources[0].value = b"\xff\xff"
    with pytest.raises(ValueError, match="cannot be decoded"):
        read_resource(sent, TYPE_URL)
