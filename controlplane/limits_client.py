"""Callers' counters, by way of the rate-limit service: who is meant, and one question to whichever replica answers."""

from __future__ import annotations

import socket
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import grpc
from google.protobuf.json_format import MessageToDict
from google.protobuf.struct_pb2 import Struct

from controlplane.config.callers import API_KEYS, full_name
from controlplane.config.model import GatewayConfig
from controlplane.errors import LimitsRejected, LimitsUnavailable
from controlplane.protos import struct
from controlplane.topology import Address
from service_kit.networks import Prefixes, network_of

SERVICE = "mgw.limits.v1.Operator"
TIMEOUT_SECONDS = 1.0
ANONYMOUS = "anonymous"


@dataclass(frozen=True)
class Caller:
    """Whose counters: a verified caller, or an anonymous one by its address."""

    caller: str | None
    address: str | None
    tier: str
    is_tier_assumed: bool

    @property
    def named(self) -> dict[str, str]:
        """As the service's descriptors name it."""
        who = {"caller": self.caller} if self.caller else {"remote_address": self.address or ""}
        return {**who, "tier": self.tier}


def find_caller(given: str, tier: str | None, config: GatewayConfig) -> Caller:
    """The caller that an id means: PROVIDER/SUBJECT, an address, or else a subject of the first provider.

    A subject that looks like one of the first two is meant by its full form. Raises ValueError for what is none.
    """
    if not given or len(given.encode()) > 400 or not given.isprintable():
        raise ValueError("a caller is a subject, PROVIDER/SUBJECT, or an address")
    if tier is not None and tier not in config.limits.tiers:
        raise ValueError(f"no tier named {tier!r}, only {', '.join(sorted(config.limits.tiers))}")
    network = named_network(given, Prefixes(config.limits.ipv4_prefix, config.limits.ipv6_prefix))
    if network is not None:
        return Caller(None, network, tier or ANONYMOUS, is_tier_assumed=False)
    providers = {provider.name: provider for provider in config.auth.providers}
    name, _, subject = full_name(given, config).partition("/")
    if tier is not None:
        return Caller(f"{name}/{subject}", None, tier, is_tier_assumed=False)
    if name == API_KEYS:
        tiers = [key.tier for key in config.auth.api_keys if key.subject == subject]
        return Caller(f"{name}/{subject}", None, tiers[0] if tiers else ANONYMOUS, is_tier_assumed=not tiers)
    return Caller(f"{name}/{subject}", None, providers[name].default_tier, is_tier_assumed=True)


def named_network(text: str, prefixes: Prefixes) -> str | None:
    """The network that an address is in, which is one anonymous caller; None for what is no address. Such a network may
    be named itself."""
    name, slash, _ = text.partition("/")
    address = canonical_address(name)
    if address is None:
        return None
    network = network_of(address, prefixes)
    return network if not slash or network == text.lower() else None


def canonical_address(text: str) -> str | None:
    """The address as Envoy writes it; None for what is none."""
    for family in (socket.AF_INET, socket.AF_INET6):
        try:
            return socket.inet_ntop(family, socket.inet_pton(family, text))
        except (OSError, ValueError):
            continue
    return None


class CallerLimits:
    """Asks the rate-limit service. Its replicas share one store, so any of them will do."""

    def __init__(self, replicas: Sequence[Address]) -> None:
        self._channels = [grpc.aio.insecure_channel(str(replica)) for replica in replicas]

    async def ask(self, method: str, caller: Caller, **values: Any) -> dict[str, Any]:
        """One of Peek, Reset, Override and Grant; what the service answers.

        Raises LimitsRejected for what does not fit, LimitsUnavailable where no replica or no store answers.
        """
        request = struct({**caller.named, **{key: value for key, value in values.items() if value is not None}})
        reason = "there is no rate-limit service"
        for channel in self._channels:
            call = channel.unary_unary(
                f"/{SERVICE}/{method}",
                request_serializer=Struct.SerializeToString,
                response_deserializer=Struct.FromString,
            )
            try:
                answer: dict[str, Any] = _whole(MessageToDict(await call(request, timeout=TIMEOUT_SECONDS)))
            except grpc.aio.AioRpcError as error:
                reason = error.details() or error.code().name
                if error.code() == grpc.StatusCode.INVALID_ARGUMENT:
                    raise LimitsRejected(reason) from error
                if error.code() != grpc.StatusCode.UNAVAILABLE:
                    break  # it may have been done: asking the next replica could do it twice
            else:
                return answer
        raise LimitsUnavailable(reason)

    async def close(self) -> None:
        """Close the connections."""
        for channel in self._channels:
            await channel.close()


def _whole(value: Any) -> Any:
    """A Struct has no whole numbers."""
    if isinstance(value, Mapping):
        return {key: _whole(child) for key, child in value.items()}
    if isinstance(value, list):
        return [_whole(child) for child in value]
    return int(value) if isinstance(value, float) and value.is_integer() else value
