"""What a request's headers lose before anything looks at them."""

from __future__ import annotations

from typing import Any

import pytest

from controlplane import protos
from controlplane.translate import early_headers, listeners
from tests.support import early
from tests.support.configs import a_config

FORWARDING = [
    "forwarded",
    "x-real-ip",
    "x-forwarded",
    "x-forwarded-f",
    "x-forwarded-format",
    "x-forwarded-host",
    "x-forwarded-port",
    "x-forwarded-p",
    "x-forwarded-prefix",
    "x-forwarded-proto-version",
    "x-forwarded-protocol",
    "x-forwarded-scheme",
    "x-forwarded-server",
    "x-forwarded-ssl",
    "x-forwarded-uri",
    "x-forwarded-user",
    "true-client-ip",
    "x-client-ip",
    "cf-connecting-ip",
    "x-original-url",
    "x-original-host",
    "x-rewrite-url",
]
RESERVED = ["x-user-id", "x-user-tier", "x-user-issuer", "x-mgw-caller", "x-gateway-error", "x-envoy-retry-on"]
ORDINARY = [
    "x-user-identity",
    "x-user",
    "user-id",
    "authorization",
    "x-original",
    "x-realm",
    "x-client-version",
    "x-a_b",
]
OURS = ["x-request-id", "x-correlation-id", "x-forwarded-for", "x-api-key", "content-length"]
RESPELT = [
    "x_request_id",
    "x-request_id",
    "x_correlation-id",
    "x_forwarded_for",
    "x-forwarded_for",
    "x_forwarded-proto",
]
RESPELT += ["x_api_key", "content_length", "transfer_encoding", "keep_alive", "proxy_authorization"]


def is_removed(name: str, **listener: Any) -> bool:
    return early.is_removed(a_config(listener=listener), name)


@pytest.mark.parametrize("name", RESERVED)
@pytest.mark.parametrize("listener", [{}, {"trusted_hops": 1}, {"keep_underscores": True}])
def test_reserved_names_go_whoever_sends_them(name: str, listener: dict[str, Any]) -> None:
    """What only the gateway may say is taken from every client, in every spelling."""
    assert is_removed(name, **listener)
    assert is_removed(name.replace("-", "_"), **listener)


@pytest.mark.parametrize("name", FORWARDING)
def test_forwarding_headers_go_unless_a_hop_is_trusted(name: str) -> None:
    """A proxy that nobody trusts cannot tell upstreams of its client."""
    assert is_removed(name)
    assert is_removed(name.replace("-", "_"), keep_underscores=True)
    assert not is_removed(name, trusted_hops=1)


@pytest.mark.parametrize("name", [*ORDINARY, *OURS])
def test_other_names_stay(name: str) -> None:
    """So do the headers that the gateway sets itself, and names that only look alike."""
    assert "_" in name or not is_removed(name)
    assert not is_removed(name, keep_underscores=True)


@pytest.mark.parametrize("name", RESPELT)
@pytest.mark.parametrize("hops", [0, 1])
def test_no_other_spelling_of_a_header_with_a_meaning_here(name: str, hops: int) -> None:
    """Where names with `_` are kept, those that pose as a header that the gateway sets or reads still go."""
    assert is_removed(name, keep_underscores=True, trusted_hops=hops)


@pytest.mark.parametrize(("keeps", "action"), [(False, "DROP_HEADER"), (True, None)])
def test_names_with_underscores(keeps: bool, action: str | None) -> None:
    """They are dropped unless the document says otherwise."""
    found = protos.message_to_dict(listeners.connection_manager(a_config(listener={"keep_underscores": keeps})))

    assert found["common_http_protocol_options"].get("headers_with_underscores_action") == action


@pytest.mark.parametrize(("hops", "mutations"), [(0, 1), (1, 2), (2, 4), (16, 6)])
def test_only_what_a_trusted_hop_says_is_mended(hops: int, mutations: int) -> None:
    """A mutation for each address that may count, as they cost. Where nobody is believed, one keeps what was sent."""
    config = a_config(listener={"trusted_hops": hops})

    names = [each.append.header.key for each in early_headers.mutations(config)]

    assert names.count("x-forwarded-for") == mutations
