"""From which addresses a route may be called: Envoy's RBAC filter, whose rules are in the routes.

The filter is always in the chain, so that rules hold on connections that are open already. It is not `disabled` there:
which filters take part is decided by the path as it came, before the request filter has put it in order.

Its messages import packages that we do not keep, so they are written as TypedStruct, which Envoy takes for any message.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Sequence

from google.protobuf.message import Message

from controlplane import protos
from controlplane.config.model import Ip

RBAC = "envoy.filters.http.rbac"
DENIED = "rbac_access_denied_matched_policy[none]"
"""What Envoy says of a response that the filter made."""

_PACKAGE = "type.googleapis.com/envoy.extensions.filters.http.rbac.v3"


def rbac() -> Message:
    """The filter, without any rules of its own."""
    return protos.typed_struct.TypedStruct(type_url=f"{_PACKAGE}.RBAC", value=protos.struct({}))


def of_route(ip: Ip) -> protos.Any:
    """The rules of one route: an address that is allowed, if any are named, and that is not denied."""
    conditions = [_any_of(ip.allow)] if ip.allow else []
    conditions += [{"not_id": _any_of(ip.deny)}] if ip.deny else []
    who = {"and_ids": {"ids": conditions}} if conditions else {"any": True}
    policy = {"permissions": [{"any": True}], "principals": [who]}
    rules = {"rbac": {"rules": {"action": "ALLOW", "policies": {"clients": policy}}}}
    return protos.any_of(
        protos.typed_struct.TypedStruct(type_url=f"{_PACKAGE}.RBACPerRoute", value=protos.struct(rules))
    )


def _any_of(cidrs: Sequence[str]) -> dict[str, object]:
    return {"or_ids": {"ids": [{"remote_ip": _range(cidr)} for cidr in cidrs]}}


def _range(cidr: str) -> dict[str, object]:
    network = ipaddress.ip_network(cidr)
    return {"address_prefix": str(network.network_address), "prefix_len": network.prefixlen}
