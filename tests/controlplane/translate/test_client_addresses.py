"""From which addresses a route may be called."""

from __future__ import annotations

from typing import Any

from controlplane import protos
from controlplane.config.model import Ip
from controlplane.translate import client_addresses


def principal(**ip: list[str]) -> Any:
    message = protos.typed_struct.TypedStruct()
    assert client_addresses.of_route(Ip.model_validate(ip)).Unpack(message)
    rules = protos.message_to_dict(message)["value"]["rbac"]["rules"]
    assert rules["action"] == "ALLOW", "what no policy matches is denied"
    (found,) = rules["policies"]["clients"]["principals"]
    return found


def test_allowed_and_not_denied() -> None:
    """One policy that says both; an address alone is a network of one."""
    allow, deny = principal(allow=["10.0.0.0/8"], deny=["10.0.0.13", "2001:db8::1"])["and_ids"]["ids"]

    assert allow == {"or_ids": {"ids": [{"remote_ip": {"address_prefix": "10.0.0.0", "prefix_len": 8.0}}]}}
    assert [each["remote_ip"] for each in deny["not_id"]["or_ids"]["ids"]] == [
        {"address_prefix": "10.0.0.13", "prefix_len": 32.0},
        {"address_prefix": "2001:db8::1", "prefix_len": 128.0},
    ]


def test_who_names_nobody_lets_everybody_in() -> None:
    """An empty list says nothing."""
    assert principal() == {"any": True}
    assert len(principal(deny=["10.0.0.0/8"])["and_ids"]["ids"]) == 1
