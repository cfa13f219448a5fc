"""caller.lua: how Envoy's filters are told about a verified caller."""

from __future__ import annotations

from typing import Any

import pytest

from tests.lua.support.envoy import Headers
from tests.lua.support.worker import Worker, python


def told(in_quotas: bool) -> tuple[dict[str, str], dict[str, Any]]:
    """The headers and the metadata by which a caller is charged."""
    worker = Worker("caller", {"in_quotas": in_quotas})
    headers, metadata = Headers({}), worker.metadata()
    worker.charge_to(headers, metadata, worker.new("u 1", "pro", "idp/u 1", 9))
    return headers.values, metadata.values


def test_a_known_caller() -> None:
    """The upstream gets the caller's identity in place of any other, and authz is not asked."""
    worker = Worker("caller", {"in_quotas": False})
    headers = Headers({"x-user-id": "another", "x-user-issuer": "another"})

    worker.set_known(headers, worker.new("u/1", "pro", "idp/u/1", 9))

    assert headers.values == {
        "x-user-id": "u/1",
        "x-user-tier": "pro",
        "x-user-issuer": "idp",
        "x-mgw-identity": "known",
    }


@pytest.mark.parametrize(
    ("in_quotas", "headers", "metadata"),
    [
        (True, {"x-mgw-caller": "pro idp/u 1"}, {}),
        (False, {}, {"envoy.filters.http.ext_authz": {"tier": "pro", "caller": "idp/u 1"}}),
    ],
)
def test_whom_to_charge(in_quotas: bool, headers: dict[str, str], metadata: dict[str, Any]) -> None:
    """The quota filter reads one header; the rate-limit filter reads what authz would have said."""
    assert told(in_quotas) == (headers, metadata)


def test_accounts_are_apart() -> None:
    """No tier and no subject can be chosen so that two callers share an account, nor a caller and an address."""
    worker = Worker("caller", {"in_quotas": False})
    accounts = [
        worker.new("b", "a", "p/b", 1).account,
        worker.new("b", "ap", "/b", 1).account,
        worker.new("b", "", "a\0p/b", 1).account,
        worker.ANONYMOUS + "192.0.2.1",
    ]

    assert len(set(accounts)) == len(accounts)
    assert python(worker.new("b", "a", "p/b", 1))["bucket"] == "a p/b"
