"""verify.lua: a caller whose token Envoy verified is told as authz would tell it."""

from __future__ import annotations

from typing import Any

import pytest

from controlplane.translate import jwt_authn
from controlplane.translate.lua_literal import Literal
from tests.lua.support.envoy import Stream
from tests.lua.support.worker import Worker
from tests.lua.test_identity import CLAIMS, HEADER, NOW, encoded, the_config

TOKEN = f"Bearer {encoded(HEADER)}.{encoded(CLAIMS)}.AAAA"
AUTHZ = "envoy.filters.http.ext_authz"


def verified(settings: dict[str, str], in_quotas: bool = False, verified_by: str = "idp") -> Stream:
    told: dict[str, Literal] = {"in_quotas": in_quotas, "version": "v1"}
    worker = Worker("verify", jwt_authn.constants(the_config(), jwt_authn.NO_KEYS) | told)
    asked = settings | {"verifier": "v1"}
    stream = worker.stream({"authorization": TOKEN, "x-mgw-identity": "unverified"}, asked, now=NOW)
    stream.dynamic["envoy.filters.http.jwt_authn"] = {verified_by: {}}
    return worker.request(stream)


@pytest.mark.parametrize("in_quotas", [False, True])
def test_what_is_told_of_a_verified_caller(in_quotas: bool) -> None:
    """The upstream, the limiter and the decision cache get the same as from authz, and authz is not asked."""
    found = verified({"auth": "required", "policy": "e1/r", "epoch": "e1"}, in_quotas)
    headers: dict[str, Any] = {
        "authorization": TOKEN,
        "x-user-id": "u1",
        "x-user-tier": "pro",
        "x-user-issuer": "idp",
        "x-mgw-identity": "known",
    }

    assert found.request.values == headers | ({"x-mgw-caller": "pro idp/u1"} if in_quotas else {})
    assert found.dynamic[AUTHZ] == {
        "tier": "pro",
        "caller": "idp/u1",
        "subject": "u1",
        "until": NOW + 60,
        "epoch": "e1",
    }


@pytest.mark.parametrize("in_quotas", [False, True])
def test_without_a_decision_cache(in_quotas: bool) -> None:
    """Only the limiter is told, in the one place where it looks."""
    found = verified({"auth": "required"}, in_quotas)

    assert found.dynamic.get(AUTHZ) == (None if in_quotas else {"tier": "pro", "caller": "idp/u1"})


def test_who_is_not_verified() -> None:
    """Nothing is said, so authz is asked."""
    found = verified({"auth": "required", "epoch": "e1"}, verified_by="other")

    assert found.request.values["x-mgw-identity"] == "unverified"
    assert "x-user-id" not in found.request.values
    assert AUTHZ not in found.dynamic
