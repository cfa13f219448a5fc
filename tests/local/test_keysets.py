"""Secrets as key sets for Envoy: which providers have one, and what an Envoy says that it holds."""

from __future__ import annotations

import base64
import json
import re
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from controlplane.config import load
from controlplane.local.keysets import held_secrets, key_sets
from controlplane.translate.jwt_authn import held
from tests.support.configs import DEFAULT, values

SECRET = "a secret of more than thirty-two bytes, ü"
ENVIRONMENT = {"A": SECRET, "B": SECRET[::-1]}


def written(folder: Path, *providers: dict[str, Any]) -> Path:
    path = folder / "gateway.json"
    path.write_text(
        json.dumps(values(auth={"providers": [{"name": "p", "algorithms": ["HS256"]} | p for p in providers]}))
    )
    return path


def sets(folder: Path, *providers: dict[str, Any], **environment: str) -> dict[str, list[dict[str, str]]]:
    found = key_sets(written(folder, *providers), ENVIRONMENT | environment)
    return {name: json.loads(text)["keys"] for name, text in found.items()}


def secret_of(key: dict[str, str]) -> str:
    return base64.urlsafe_b64decode(key["k"] + "==").decode()


def test_the_default_document_has_one_provider_with_one_secret() -> None:
    """A reference in the document, the secret in the environment."""
    found = key_sets(DEFAULT, {"JWT_SECRET": SECRET})

    assert list(found) == ["platform"]
    (key,) = json.loads(found["platform"])["keys"]
    assert (key["kty"], key["alg"], secret_of(key)) == ("oct", "HS256", SECRET)
    assert "kid" not in key


def test_a_secret_is_a_key_for_each_algorithm(tmp_path: Path) -> None:
    """Envoy pins an algorithm by key, so each secret is there once for each."""
    keys = sets(
        tmp_path,
        {
            "algorithms": ["HS256", "HS512"],
            "secrets": [{"kid": "new", "secret": "${A}"}, {"kid": 7, "secret": "${B}"}],
        },
    )["p"]

    assert [(key["kid"], key["alg"], secret_of(key)) for key in keys] == [
        ("new", "HS256", ENVIRONMENT["A"]),
        ("new", "HS512", ENVIRONMENT["A"]),
        ("7", "HS256", ENVIRONMENT["B"]),
        ("7", "HS512", ENVIRONMENT["B"]),
    ]


@given(st.text(st.characters(blacklist_categories=["Cs"]), min_size=1))
def test_a_secret_is_written_as_the_rfc_has_it(secret: str) -> None:
    """RFC 7515: base64url without padding, and back."""
    with TemporaryDirectory() as folder:
        (key,) = sets(Path(folder), {"secret": "${A}"}, A=secret)["p"]

    assert secret_of(key) == secret
    assert re.fullmatch(r"[A-Za-z0-9_-]+", key["k"])


def test_a_file_holds_a_secret_without_the_space_around_it(tmp_path: Path) -> None:
    """As the authz service reads it."""
    (tmp_path / "secret").write_bytes(b"\n " + SECRET.encode() + b"\r\n")

    (key,) = sets(tmp_path, {"secret_file": str(tmp_path / "secret")})["p"]

    assert secret_of(key) == SECRET


@pytest.mark.parametrize(
    "provider",
    [
        {"secret": "${GONE}"},
        {"secret": "${EMPTY}"},
        {"secret": "hush"},
        {"secret": "${A}x"},
        {"secret": "${A:-hush}"},
        {"secrets": []},
        {"secrets": [{"secret": "${A}"}, {"secret": "${GONE}"}]},
        {"secrets": [{"secret": "${GONE}"}, {"secret": "${A}"}]},
        {"algorithms": ["RS256"], "pem": "x"},
        {"algorithms": ["RS256"], "jwks_uri": "https://a"},
    ],
    ids=str,
)
def test_a_provider_whose_secrets_are_not_all_here_has_no_key_set(tmp_path: Path, provider: dict[str, Any]) -> None:
    """With some of them Envoy would call good tokens bad; the others' sets are not touched."""
    found = sets(tmp_path, provider, {"name": "other", "secret": "${A}"}, EMPTY="")

    assert list(found) == ["other"]


@pytest.mark.parametrize(
    "text",
    [
        "",
        "[",
        "[]",
        "auth: x",
        "auth: {providers: x}",
        "auth: {providers: [x]}",
        "auth: {providers: [{secret: '${A}'}]}",
        "auth: {providers: [{name: p, secret: '${A}'}]}",
        "auth: {providers: [{name: p, algorithms: 5, secret: '${A}'}]}",
        "auth: {providers: [{name: p, algorithms: [HS256], secrets: [x]}]}",
        "auth: {providers: [{name: p, algorithms: [HS256], secret_file: /no/such/file}]}",
        'auth: {providers: [{name: p, algorithms: [HS256], secret_file: "\\0"}]}',
    ],
)
def test_a_document_that_says_it_badly_is_for_others_to_reject(tmp_path: Path, text: str) -> None:
    """Here it has no key sets."""
    path = tmp_path / "gateway.yaml"
    path.write_text(text)

    assert key_sets(path, ENVIRONMENT) == {}


def test_a_document_that_cannot_be_read(tmp_path: Path) -> None:
    """Nor has one that is not there, or is no text."""
    (tmp_path / "bytes").write_bytes(b"\xff\xfe")

    assert key_sets(tmp_path / "nowhere", ENVIRONMENT) == {}
    assert key_sets(tmp_path / "bytes", ENVIRONMENT) == {}
    assert held_secrets(tmp_path / "nowhere", ()) == []


PROVIDERS: list[dict[str, Any]] = [
    {"secret": "${A}"},
    {"name": "rotating", "secrets": [{"kid": "new", "secret": "${A}"}, {"kid": "old", "secret": "${B}"}]},
    {"name": "nameless", "secrets": [{"secret": "${B}"}, {"secret": "${A}"}]},
]


def test_an_envoy_says_what_the_translation_asks_for(tmp_path: Path) -> None:
    """By the very words, for each kind of provider: else it would never be told to verify anything."""
    path = written(tmp_path, *PROVIDERS)
    config = load.load(path.read_text(), {})[1]

    assert held_secrets(path, {"p", "rotating", "nameless"}) == sorted(map(held, config.auth.providers))
    assert held_secrets(path, {"rotating"}) == [held(config.auth.providers[1])]
    assert held_secrets(path, ()) == []


def test_other_references_are_other_words(tmp_path: Path) -> None:
    """Whoever holds the secret of before does not hold this one; and no secret is in the words."""
    before = held_secrets(written(tmp_path, {"secret": "${A}"}), {"p"})
    others = [
        held_secrets(written(tmp_path, provider), {"p"})
        for provider in ({"secret": "${B}"}, {"secrets": [{"kid": "a", "secret": "${A}"}]})
    ]

    assert before not in others
    assert before == held_secrets(written(tmp_path, {"secret": "${A}", "issuer": "i"}), {"p"})
    assert re.fullmatch(r"p:[0-9a-f]+", before[0])
