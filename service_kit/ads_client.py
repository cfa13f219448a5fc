"""Follows one policy on an ADS stream: state of the world (xDS, "Variants of the xDS Transport Protocol")."""

from __future__ import annotations

import asyncio
import json
import random
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import grpc
import structlog
from google.protobuf.json_format import MessageToDict
from google.protobuf.message import DecodeError

from envoy_api.envoy.service.discovery.v3 import discovery_pb2
from envoy_api.xds.type.v3 import typed_struct_pb2
from service_kit.files import write_atomically

log = structlog.get_logger()

STREAM = "/envoy.service.discovery.v3.AggregatedDiscoveryService/StreamAggregatedResources"
TYPED_STRUCT = "type.googleapis.com/xds.type.v3.TypedStruct"
INVALID_ARGUMENT = 3  # google.rpc.Code
FIRST_PAUSE_SECONDS, LONGEST_PAUSE_SECONDS = 0.1, 1.0

# A control plane that is gone is noticed, and found again, within seconds. gRPC's own back-off goes to two minutes.
CHANNEL_OPTIONS = (
    ("grpc.keepalive_time_ms", 10_000),
    ("grpc.keepalive_timeout_ms", 5_000),
    ("grpc.initial_reconnect_backoff_ms", 100),
    ("grpc.min_reconnect_backoff_ms", 100),
    ("grpc.max_reconnect_backoff_ms", 1_000),
)

OnPolicy = Callable[[Mapping[str, Any]], str | None]
"""Puts a policy in force and returns None. Or leaves the old one in force, and returns the text of the NACK."""


class AdsClient:
    """Asks one control plane for one policy, again and again, and keeps the last good policy on disk.

    `target` is its address, as gRPC takes it. `last_good` is the file; without it nothing is kept.
    """

    def __init__(self, target: str, node_id: str, type_url: str, on_policy: OnPolicy, last_good: Path | None) -> None:
        self._target, self._node_id, self._type_url = target, node_id, type_url
        self._on_policy, self._last_good = on_policy, last_good
        self._version = ""
        self._is_connected = False

    async def run(self) -> None:
        """Connect, follow, and connect again after a break, until cancelled."""
        pause = FIRST_PAUSE_SECONDS
        async with grpc.aio.insecure_channel(self._target, options=CHANNEL_OPTIONS) as channel:
            while True:
                try:
                    await self._follow(channel)
                except grpc.aio.AioRpcError as error:
                    self._note_break(error.code().name)
                except Exception:  # it would end the stream for good; the policy in force stays
                    log.exception("ads.crashed")
                else:
                    self._note_break("closed by the control plane")
                pause = FIRST_PAUSE_SECONDS if self._is_connected else min(2 * pause, LONGEST_PAUSE_SECONDS)
                self._is_connected = False
                await asyncio.sleep(pause * random.uniform(0.5, 1.0))

    def load_last_good(self) -> bool:
        """Put the last good policy in force. Returns whether there is one that can be used."""
        if self._last_good is None or not self._last_good.exists():
            return False
        try:
            policy = json.loads(self._last_good.read_bytes())["policy"]
            problem = self._on_policy(policy)
        except (OSError, ValueError, KeyError, TypeError) as error:
            problem = f"unreadable ({type(error).__name__})"
        if problem is not None:
            log.warning("policy.kept_not_used", problem=problem)
        return problem is None

    async def _follow(self, channel: grpc.aio.Channel) -> None:
        call = channel.stream_stream(
            STREAM,
            request_serializer=discovery_pb2.DiscoveryRequest.SerializeToString,
            response_deserializer=discovery_pb2.DiscoveryResponse.FromString,
        )()
        try:
            await call.write(self._request())
            async for response in call:
                self._note_connection()
                await call.write(self._take(response))
        finally:
            call.cancel()

    def _take(self, response: discovery_pb2.DiscoveryResponse) -> discovery_pb2.DiscoveryRequest:
        """The ACK for a response, or the NACK, which leaves the version as it was."""
        try:
            policy = read_resource(response, self._type_url)
            problem = self._on_policy(policy)
        except ValueError as error:
            policy, problem = {}, str(error)
        except Exception as error:  # a policy that crashes us is rejected like any other bad one
            log.exception("policy.crashed", version=response.version_info)
            policy, problem = {}, f"internal error: {type(error).__name__}"
        if problem is None:
            self._version = response.version_info
            self._keep(policy)
            log.info("policy.acknowledged", version=response.version_info)
        else:
            log.warning("policy.rejected", version=response.version_info, problem=problem)
        return self._request(nonce=response.nonce, problem=problem)

    def _request(self, nonce: str = "", problem: str | None = None) -> discovery_pb2.DiscoveryRequest:
        request = discovery_pb2.DiscoveryRequest(
            version_info=self._version, type_url=self._type_url, response_nonce=nonce
        )
        request.node.id = self._node_id
        if problem is not None:
            request.error_detail.code = INVALID_ARGUMENT
            request.error_detail.message = problem
        return request

    def _keep(self, policy: Mapping[str, Any]) -> None:
        """Write the policy to disk. Where that fails, the policy is in force all the same."""
        if self._last_good is None:
            return
        try:
            write_atomically(self._last_good, json.dumps({"version": self._version, "policy": policy}))
        except OSError as error:
            log.warning("policy.not_kept", path=str(self._last_good), error=str(error))

    def _note_connection(self) -> None:
        if not self._is_connected:
            self._is_connected = True
            log.info("ads.connected", target=self._target)

    def _note_break(self, why: str) -> None:
        if self._is_connected:
            log.warning("ads.disconnected", target=self._target, why=why)
        else:
            log.debug("ads.unreachable", target=self._target, why=why)


def read_resource(response: discovery_pb2.DiscoveryResponse, type_url: str) -> dict[str, Any]:
    """The one policy in a response. Raises ValueError where the response holds anything else."""
    if response.type_url != type_url or len(response.resources) != 1:
        raise ValueError(f"expected one {type_url}, got {len(response.resources)} of {response.type_url}")
    resource = response.resources[0]
    if resource.type_url != TYPED_STRUCT:
        raise ValueError(f"expected a {TYPED_STRUCT}, got a {resource.type_url}")
    try:
        typed = typed_struct_pb2.TypedStruct.FromString(resource.value)
    except DecodeError as error:
        raise ValueError("the resource cannot be decoded") from error
    if typed.type_url != type_url:
        raise ValueError(f"expected a {type_url}, got a {typed.type_url}")
    policy: dict[str, Any] = MessageToDict(typed.value)
    return policy
