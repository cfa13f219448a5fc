"""A caller's full name."""

from __future__ import annotations

import pytest

from controlplane.config.callers import full_name
from tests.support.configs import a_config


@pytest.mark.parametrize(
    ("given", "name"),
    [
        ("ada", "platform/ada"),
        ("platform/ada", "platform/ada"),
        ("apikey/ada", "apikey/ada"),
        ("idp/ada", "platform/idp/ada"),
        ("platform/", "platform/platform/"),
    ],
)
def test_full_name(given: str, name: str) -> None:
    """A subject is one of the first provider, unless a provider that there is stands before it."""
    assert full_name(given, a_config()) == name
