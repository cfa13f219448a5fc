"""Documents into what is enforced: whole swaps, local keys, files, and what stays when a document is rejected."""

from __future__ import annotations

import asyncio
import hashlib
import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from structlog.testing import capture_logs

from authz_service.enforcement import Enforcement
from authz_service.errors import PolicyRejected
from authz_service.jwks import JwksTimes
from authz_service.metrics import Metrics
from authz_service.policy import read_policy
from authz_service.tokens import InvalidToken, KeyWanted, Verified


@pytest.fixture
async def enforcement(secret: str, tmp_path: Path) -> AsyncIterator[Enforcement]:
    environ = {"JWT_SECRET": secret, "SHORT": "short", "NEXT_SECRET": "n" * 48}
    made = Enforcement(environ, Metrics(), state_dir=tmp_path, times=JwksTimes(wait_seconds=2))
    yield made
    await made.close()


def verdict(enforcement: Enforcement, token: str, now: float) -> object:
    assert enforcement.current is not None
    return enforcement.current.verifier.verify(token, None, now)


async def test_the_agreed_policy_is_enforced(enforcement: Enforcement, a_policy: Any, mint: Any, now: float) -> None:
    """The secret is read where the document says it is."""
    assert enforcement.current is None
    enforcement.enforce(read_policy(a_policy()))

    assert isinstance(verdict(enforcement, mint(), now), Verified)


@pytest.mark.parametrize(
    ("provider", "message"),
    [
        ({"secrets": [{"env": "MISSING"}]}, "provider platform: MISSING is not set"),
        ({"secrets": [{"env": "SHORT"}]}, "provider platform: SHORT has 5 bytes; HS256 needs at least 32"),
        ({"secrets": [{"file": "/nowhere/secret"}]}, "/nowhere/secret: No such file"),
        ({"secrets": ..., "algorithms": ["RS256"], "pem": "nonsense"}, "pem: it cannot be read"),
        ({"secrets": ..., "algorithms": ["RS256"], "jwks": {"keys": []}}, "exactly one of|no usable key"),
        ({"secrets": ..., "algorithms": ["RS256"], "jwks": {"keys": [{"kty": "oct"}]}}, "no usable key"),
        ({"secrets": ..., "algorithms": ["RS256"], "jwks_file": "/nowhere/keys"}, "/nowhere/keys: No such file"),
    ],
)
async def test_a_policy_that_cannot_be_enforced_changes_nothing(
    provider: Any, message: str, enforcement: Enforcement, a_policy: Any, mint: Any, now: float
) -> None:
    """The last good one stays, and the message says what is missing."""
    enforcement.enforce(read_policy(a_policy()))
    with pytest.raises(PolicyRejected, match=message):
        enforcement.enforce(read_policy(a_policy(provider)))

    assert isinstance(verdict(enforcement, mint(), now), Verified)


async def test_a_revocation_applies_to_the_next_request(
    enforcement: Enforcement, a_policy: Any, mint: Any, now: float
) -> None:
    """A cached token is not remembered across policies; an equal policy forgets nothing."""
    enforcement.enforce(read_policy(a_policy()))
    token = mint(jti="t1")
    verdict(enforcement, token, now)
    enforcement.enforce(read_policy(a_policy()))
    assert enforcement.current is not None
    assert enforcement.current.verifier.cached(token, None, now) is not None

    enforcement.enforce(read_policy(a_policy(revocations={"jti": ["t1"]})))
    assert enforcement.current.verifier.cached(token, None, now) is None
    assert isinstance(verdict(enforcement, token, now), InvalidToken)


async def test_the_latest_revocation_of_a_subject_counts(
    enforcement: Enforcement, a_policy: Any, mint: Any, now: float
) -> None:
    """Whatever their order in the list."""
    subjects = [{"provider": "platform", "subject": "u1", "issued_before": now + each} for each in (5, 10, 1)]
    enforcement.enforce(read_policy(a_policy(revocations={"subjects": subjects})))

    assert isinstance(verdict(enforcement, mint(iat=now + 9), now), InvalidToken)
    assert isinstance(verdict(enforcement, mint(iat=now + 10), now), Verified)


async def test_api_keys_are_known_by_their_digest(enforcement: Enforcement, a_policy: Any) -> None:
    """A revoked subject's key is none; an unknown tier is anonymous; the header's name is lower case."""
    keys = [
        {"sha256": hashlib.sha256(key.encode()).hexdigest().upper(), "subject": key, "tier": tier}
        for key, tier in (("a", "pro"), ("b", "pro"), ("c", "platinum"))
    ]
    revoked = {"subjects": [{"provider": "apikey", "subject": "b", "issued_before": 1}]}
    enforcement.enforce(read_policy(a_policy(api_keys=keys, api_key_header="X-Key", revocations=revoked)))

    assert enforcement.current is not None
    policy = enforcement.current.policy
    assert policy.api_key_header == "x-key"
    assert {verified.subject: verified.tier for verified in policy.api_keys.values()} == {"a": "pro", "c": "anonymous"}


async def test_secret_files_and_their_replacement(
    enforcement: Enforcement, a_policy: Any, mint: Any, tmp_path: Path, now: float
) -> None:
    """The last line end is not part of a secret; a changed file is a changed key; a bad one changes nothing."""
    path = tmp_path / "secret"
    path.write_text("f" * 32 + "\n")
    enforcement.enforce(read_policy(a_policy({"secrets": [{"file": str(path)}]})))
    assert isinstance(verdict(enforcement, mint(key="f" * 32), now), Verified)

    path.write_text("g" * 32)
    enforcement.recheck_files()
    assert isinstance(verdict(enforcement, mint(key="f" * 32), now), InvalidToken)
    assert isinstance(verdict(enforcement, mint(key="g" * 32), now), Verified)

    path.write_text("short")
    enforcement.recheck_files()
    assert isinstance(verdict(enforcement, mint(key="g" * 32), now), Verified)


async def test_inline_and_file_key_sets(
    enforcement: Enforcement, a_policy: Any, mint: Any, private_keys: Any, jwk: Any, tmp_path: Path, now: float
) -> None:
    """The same keys from either place; a file may be swapped by a symlink."""
    document = {"keys": [jwk(private_keys["ES256"], "k1", "ES256")]}
    token = mint(key=private_keys["ES256"], algorithm="ES256", headers={"kid": "k1"})
    base = {"secrets": ..., "algorithms": ["ES256"]}
    enforcement.enforce(read_policy(a_policy({**base, "jwks": document})))
    assert isinstance(verdict(enforcement, token, now), Verified)

    (tmp_path / "one").write_text('{"keys":[' + json.dumps(jwk(private_keys["ES256"], "k0", "ES256")) + "]}")
    (tmp_path / "two").write_text(json.dumps(document))
    (tmp_path / "keys").symlink_to("one")
    enforcement.enforce(read_policy(a_policy({**base, "jwks_file": str(tmp_path / "keys")})))
    assert isinstance(verdict(enforcement, token, now), InvalidToken)

    (tmp_path / "next").symlink_to("two")
    (tmp_path / "next").replace(tmp_path / "keys")
    enforcement.recheck_files()
    assert isinstance(verdict(enforcement, token, now), Verified)


async def test_a_remote_set_survives_a_policy_that_still_uses_it(
    enforcement: Enforcement,
    a_policy: Any,
    key_source: Any,
    private_keys: Any,
    jwk: Any,
    mint: Any,
    now: float,
    eventually: Any,
) -> None:
    """A changed leeway fetches nothing; a changed interval or URI does. A provider that goes takes its task along."""
    key_source.publish(jwk(private_keys["ES256"], "k1", "ES256"))
    base = {"secrets": ..., "algorithms": ["ES256"], "jwks_uri": key_source.url}
    token = mint(key=private_keys["ES256"], algorithm="ES256", headers={"kid": "k1"})
    enforcement.enforce(read_policy(a_policy(base)))
    first = verdict(enforcement, token, now)
    assert isinstance(first, KeyWanted)
    await first.provider.keys.refresh("k1")
    import time

    alive = mint(key=private_keys["ES256"], algorithm="ES256", headers={"kid": "k1"}, exp=int(time.time()) + 60)
    assert isinstance(verdict(enforcement, alive, time.time()), Verified)
    calls = len(key_source.calls)

    enforcement.enforce(read_policy(a_policy({**base, "leeway_seconds": 5})))
    assert isinstance(verdict(enforcement, alive, time.time()), Verified)
    assert len(key_source.calls) == calls

    enforcement.enforce(read_policy(a_policy({**base, "jwks_refresh_seconds": 3600})))
    await eventually(lambda: len(key_source.calls) > calls)
    assert isinstance(verdict(enforcement, alive, time.time()), Verified)
    calls = len(key_source.calls)

    enforcement.enforce(read_policy(a_policy({**base, "jwks_uri": key_source.url + "?2"})))
    await eventually(lambda: len(key_source.calls) > calls)
    enforcement.enforce(read_policy(a_policy()))
    await eventually(lambda: not [task for task in asyncio.all_tasks() if task.get_name().startswith("jwks ")])


async def test_changed_keys_empty_the_cache(
    enforcement: Enforcement, a_policy: Any, key_source: Any, private_keys: Any, jwk: Any, mint: Any, eventually: Any
) -> None:
    """A token of a withdrawn key is invalid although it was verified a moment ago."""
    import time

    now = time.time()
    key_source.publish(jwk(private_keys["ES256"], "k1", "ES256"))
    enforcement.enforce(read_policy(a_policy({"secrets": ..., "algorithms": ["ES256"], "jwks_uri": key_source.url})))
    token = mint(key=private_keys["ES256"], algorithm="ES256", headers={"kid": "k1"}, exp=int(now) + 60)
    await eventually(lambda: isinstance(verdict(enforcement, token, time.time()), Verified))
    assert enforcement.current is not None
    verifier = enforcement.current.verifier
    assert verifier.cached(token, None, time.time()) is not None

    key_source.publish(jwk(private_keys["ES256"], "k2", "ES256"))
    await verifier.providers[0].keys.refresh("k2")
    assert verifier.cached(token, None, time.time()) is None
    assert isinstance(verdict(enforcement, token, time.time()), InvalidToken)


async def test_what_is_verified_is_kept_until_the_next_fetch(
    enforcement: Enforcement, a_policy: Any, key_source: Any, private_keys: Any, jwk: Any, mint: Any, eventually: Any
) -> None:
    """Not for as long as the token lives: Envoy is told, and forgets its decision in time."""
    import time

    began = time.time()
    key_source.publish(jwk(private_keys["ES256"], "k1", "ES256"))
    provider = {"secrets": ..., "algorithms": ["ES256"], "jwks_uri": key_source.url, "jwks_refresh_seconds": 30}
    enforcement.enforce(read_policy(a_policy(provider)))
    token = mint(key=private_keys["ES256"], algorithm="ES256", headers={"kid": "k1"}, exp=int(began) + 600)
    await eventually(lambda: isinstance(verdict(enforcement, token, time.time()), Verified))

    found = verdict(enforcement, token, time.time())
    assert isinstance(found, Verified)
    assert began + 30 <= found.until <= time.time() + 31


def test_an_ignored_key_is_logged_once_however_often_policies_come(
    enforcement: Enforcement, a_policy: Any, private_keys: Any, jwk: Any
) -> None:
    """A key set in the policy is read with every policy, and says the same each time."""
    keys = {"keys": [jwk(private_keys["ES256"], "k1", "ES256"), {"kty": "EC", "kid": "odd", "use": "enc"}]}
    base = {"secrets": ..., "algorithms": ["ES256"], "jwks": keys}
    with capture_logs() as events:
        for leeway in (1, 2, 3):
            enforcement.enforce(read_policy(a_policy({**base, "leeway_seconds": leeway})))

    assert [event["kid"] for event in events if event["event"] == "jwks.key_ignored"] == ["odd"]


@pytest.mark.parametrize("name", ["JWT_SECRET", "OTHER"])
def test_a_missing_secret_has_its_variable(name: str, a_policy: Any) -> None:
    """Whoever starts the service can then be told which variable to export."""
    document = read_policy(a_policy({"secrets": [{"kid": None, "env": name}]}))
    rejection = Enforcement({}, Metrics()).offer(lambda: document)

    assert rejection is not None
    assert (rejection.missing_secret, f"{name} is not set" in str(rejection)) == (name, True)
