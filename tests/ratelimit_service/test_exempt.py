"""Whom no limit holds for."""

from __future__ import annotations

import pytest

from ratelimit_service.exempt import Exempt

EXEMPT = Exempt.of(["10.0.0.0/8", "192.0.2.7", "2001:db8::/32"], ["platform/job"])


@pytest.mark.parametrize(
    ("caller", "address", "is_exempt"),
    [
        ("platform/job", "198.51.100.1", True),
        ("idp/job", "198.51.100.1", False),
        ("platform/job2", "", False),
        ("-", "10.255.0.1", True),
        ("platform/other", "10.0.0.1", True),
        ("-", "11.0.0.1", False),
        ("-", "::ffff:10.0.0.1", True),
        ("-", "192.0.2.7", True),
        ("-", "192.0.2.8", False),
        ("-", "2001:db8:1::1", True),
        ("-", "2001:db9::1", False),
        ("-", "no address", False),
        ("-", "", False),
    ],
)
def test_has(caller: str, address: str, is_exempt: bool) -> None:
    """By the full name, or by where the request comes from; nobody where nobody is named."""
    assert EXEMPT.has(caller, address) is is_exempt
    assert not Exempt().has(caller, address)
