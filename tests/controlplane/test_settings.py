"""How the control plane is told to run."""

from __future__ import annotations

import pytest

from controlplane.settings import Settings
from controlplane.topology import Address
from service_kit.errors import StartFailed
from service_kit.settings import shown


def test_defaults_stay_on_this_machine() -> None:
    """Without a word, everything listens on loopback and the operator's token is a new one."""
    one, other = Settings.from_environment({}), Settings.from_environment({})

    assert {address.partition(":")[0] for address in one.internal} == {"127.0.0.1"}
    assert one.api_token != other.api_token
    assert len(one.api_token) >= 32
    assert (one.api_token_editor, one.api_token_viewer) == ("", "")


def test_lists_of_replicas() -> None:
    """Replicas are separated by commas, and all of them are the gateway's own."""
    settings = Settings.from_environment(
        {"MGW_AUTHZ_ADDRESSES": "a:1, b:2,", "MGW_INTERNAL_ADDRESSES": "redis:6379", "MGW_XDS_LISTEN": ""}
    )

    assert settings.topology.authz == (Address("a", 1), Address("b", 2))
    assert {"a:1", "b:2", "redis:6379", "127.0.0.1:18000", "127.0.0.1:18001"} <= settings.internal


def test_a_bad_setting_is_named() -> None:
    """The error says which setting it is."""
    with pytest.raises(StartFailed, match=r"MGW_XDS_LISTEN='nowhere'.*HOST:PORT; LOG_LEVEL='loud'"):
        Settings.from_environment({"MGW_XDS_LISTEN": "nowhere", "LOG_LEVEL": "loud"})


def test_what_is_printed_at_start_shows_no_token() -> None:
    """Tokens are masked wherever settings are printed."""
    environment = {f"MGW_API_TOKEN{role}": "hush" for role in ("", "_EDITOR", "_VIEWER")}
    settings = Settings.from_environment(environment)

    assert "hush" not in f"{settings!r} {settings} {shown(settings)}"
    assert settings.api_token == "hush"
