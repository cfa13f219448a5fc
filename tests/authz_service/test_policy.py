"""The policy document at the door."""

from __future__ import annotations

import json
from typing import Any

import pytest

from authz_service.errors import PolicyRejected
from authz_service.policy import read_policy, read_policy_text

HASH = "a" * 64


def test_the_agreed_document_is_read(a_policy: Any) -> None:
    """As docs/agreements.md prints it, and as a protobuf Struct returns it, with doubles for numbers."""
    document = a_policy()
    policy = read_policy(document)

    assert [secret.env for secret in policy.providers[0].secrets or ()] == ["JWT_SECRET"]
    assert policy == read_policy(a_policy({"leeway_seconds": 0.0}))
    assert policy == read_policy_text(json.dumps(document))


def test_everything_else_that_may_be_in_it(a_policy: Any) -> None:
    """API keys and revocations; absent lists are empty lists."""
    policy = read_policy(
        a_policy(
            api_keys=[{"sha256": HASH, "subject": "svc", "tier": "pro"}],
            api_key_header="X-API-Key",
            revocations={"jti": ["t1"], "subjects": [{"provider": "platform", "subject": "u1", "issued_before": 5.0}]},
        )
    )

    assert policy.revocations.subjects[0].issued_before == 5
    assert read_policy(a_policy()).api_keys == []
    assert read_policy(a_policy(revocations={})).revocations.jti == []


@pytest.mark.parametrize(
    ("provider", "changes", "message"),
    [
        ({"algoritms": []}, {}, "providers.0.algoritms"),
        ({"name": ...}, {}, "providers.0.name"),
        ({"name": "a/b"}, {}, "providers.0.name"),
        ({"name": "a,b"}, {}, "providers.0.name"),
        ({"name": ""}, {}, "providers.0.name"),
        ({"name": "apikey"}, {}, "API key"),
        ({"algorithms": []}, {}, "providers.0.algorithms"),
        ({}, {"max_failures_per_minute": 0}, "max_failures_per_minute"),
        ({}, {"max_failures_per_minute": 1001}, "max_failures_per_minute"),
        ({"claims": {"tier": "/app~metadata/tier"}}, {}, "providers.0.claims.tier"),
        ({"claims": {"scopes": ""}}, {}, "providers.0.claims.scopes"),
        ({"algorithms": ["none"]}, {}, "not supported: none"),
        ({"algorithms": ["HS256", "RS256"]}, {}, "HS algorithms only"),
        ({"algorithms": ["RS256"]}, {}, "HS algorithms only"),
        ({"secrets": []}, {}, "exactly one of"),
        ({"secrets": ..., "jwks_uri": "https://idp/keys"}, {}, "HS256 cannot be used with public keys"),
        ({"secrets": ..., "pem": "x"}, {}, "HS256 cannot be used with public keys"),
        ({"secrets": ..., "algorithms": ["RS256"], "jwks_uri": "file:///etc/passwd"}, {}, "providers.0.jwks_uri"),
        ({"secrets": ..., "algorithms": ["RS256", "HS256"], "jwks_file": "f"}, {}, "need a provider each"),
        ({"jwks_uri": "https://idp/keys"}, {}, "exactly one of"),
        ({"secrets": [{}]}, {}, "either env or file"),
        ({"secrets": [{"env": "A", "file": "b"}]}, {}, "either env or file"),
        ({"secrets": [{"value": "hunter2"}]}, {}, "providers.0.secrets.0.value"),
        ({"leeway_seconds": -1}, {}, "providers.0.leeway_seconds"),
        ({"leeway_seconds": "1"}, {}, "providers.0.leeway_seconds"),
        ({"leeway_seconds": True}, {}, "providers.0.leeway_seconds"),
        ({"leeway_seconds": 1e9}, {}, "providers.0.leeway_seconds"),
        ({"on_bad_token": "ignore"}, {}, "providers.0.on_bad_token"),
        ({"default_tier": "platinum"}, {}, "no tier named platinum"),
        ({}, {"tiers": []}, "tiers"),
        ({}, {"tiers": ["Pro"]}, "tiers.0"),
        ({}, {"unknown": 1}, "unknown"),
        ({}, {"api_keys": [{"sha256": HASH, "subject": "s", "tier": "pro"}]}, "api_key_header"),
        ({}, {"api_key_header": "authorization"}, "cannot be authorization"),
        ({}, {"api_key_header": "x y"}, "api_key_header"),
        (
            {},
            {"api_key_header": "k", "api_keys": [{"sha256": "x", "subject": "s", "tier": "pro"}]},
            "api_keys.0.sha256",
        ),
        (
            {},
            {"api_key_header": "k", "api_keys": [{"sha256": HASH, "subject": "a\n", "tier": "pro"}]},
            "control characters",
        ),
        (
            {},
            {"api_key_header": "k", "api_keys": 2 * [{"sha256": HASH, "subject": "s", "tier": "pro"}]},
            "occurs twice",
        ),
        ({}, {"revocations": {"jti": [1]}}, "revocations.jti.0"),
        ({}, {"revocations": {"subjects": [{"subject": "u"}]}}, "revocations.subjects.0.provider"),
    ],
)
def test_problems_name_their_place(provider: Any, changes: Any, message: str, a_policy: Any) -> None:
    """What cannot be enforced is rejected as a whole."""
    with pytest.raises(PolicyRejected, match=message.replace(".", r"\.")):
        read_policy(a_policy(provider, **changes))


def test_two_providers_with_one_name(a_policy: Any) -> None:
    """Their callers could not be told apart."""
    document = a_policy()
    document["providers"] *= 2

    with pytest.raises(PolicyRejected, match="one name"):
        read_policy(document)


def test_problems_quote_no_value(a_policy: Any) -> None:
    """A secret in the wrong place does not end up in a NACK, a log or an API response."""
    with pytest.raises(PolicyRejected) as rejected:
        read_policy(a_policy({"secrets": [{"env": ["hunter2"]}], "issuer": {"hunter2": 1}}, tiers="hunter2"))

    assert "hunter2" not in str(rejected.value)


@pytest.mark.parametrize("text", [b"", b"[]", b"null", b"{", b"[" * 100_000, b"\xff"])
def test_text_that_is_no_policy(text: bytes) -> None:
    """Is rejected, and crashes nothing."""
    with pytest.raises(PolicyRejected):
        read_policy_text(text)
