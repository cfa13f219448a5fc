"""Warnings: what is accepted and probably not meant, at its place in the document."""

from __future__ import annotations

from typing import Any

import pytest
import yaml

from controlplane.config import load
from controlplane.errors import Problem
from tests.support.configs import ENVIRONMENT, default_text


def warned(names: dict[str, str], claims: dict[str, Any] | None = None) -> list[Problem]:
    """What is said of the shipped document with these names of claims, and a last route that asks for these claims."""
    document = yaml.safe_load(default_text())
    document["auth"]["providers"][0]["claims"] = names
    document["routes"][-1]["claims"] = claims or {}
    return load.warnings_of(*load.load(yaml.safe_dump(document, sort_keys=False), ENVIRONMENT))


def test_the_shipped_document_has_none() -> None:
    """Nobody starts with a warning."""
    assert load.warnings_of(*load.load(default_text(), ENVIRONMENT)) == []


@pytest.mark.parametrize("key", ["subject", "tier", "scopes"])
def test_a_dotted_name_of_a_providers_claim(key: str) -> None:
    """It is one claim's own name, and the pointer that was probably meant is shown."""
    (warning,) = warned({key: "app_metadata.plan-1"})

    assert warning.path == f"auth.providers.0.claims.{key}"
    assert warning.message == (
        "'app_metadata.plan-1' is one claim's own name; a claim inside others is written /app_metadata/plan-1"
    )
    assert warning.line > 1


def test_a_dotted_name_that_a_route_asks_for() -> None:
    """At its place too, and each of them."""
    found = warned({}, {"realm.roles": "admin", "org": "acme", "a.b.c": 1})

    assert [warning.path.split(".claims.")[1] for warning in found] == ["realm.roles", "a.b.c"]


@pytest.mark.parametrize(
    "name",
    ["tier", "/app_metadata/tier", "/a.b/c.d", "https://example.com/tier", "urn:example.com:tier", "a..b", ".a", "a."],
)
def test_other_names(name: str) -> None:
    """A pointer, a URL, and a name without a dot between words are what they are."""
    assert warned({"tier": name}, {name: 1}) == []
