"""The environment at the door."""

from __future__ import annotations

from pathlib import Path

import pytest

from authz_service.settings import check_secret, read_settings, secret_missing
from service_kit.errors import StartFailed

GIVEN = {"MGW_CONTROLPLANE": "127.0.0.1:18000"}


def test_defaults_and_empty_variables() -> None:
    """An empty variable is an absent one; the defaults listen on loopback."""
    settings = read_settings({**GIVEN, "MGW_POLICY_FILE": "", "LOG_LEVEL": "", "MGW_STATE_DIR": ""})

    assert settings.listen.startswith("127.0.0.1:")
    assert (settings.policy_file, settings.log_level, settings.last_good_policy) == (None, "info", None)


def test_everything_given() -> None:
    """Each variable of the agreement is read."""
    settings = read_settings(
        {
            "MGW_LISTEN": "unix:/run/authz.sock",
            "MGW_METRICS_LISTEN": "127.0.0.1:9102",
            "MGW_CONTROLPLANE": "cp:18000",
            "MGW_NODE_ID": "authz-3",
            "MGW_STATE_DIR": "/var/lib/mgw",
            "LOG_LEVEL": "DEBUG",
            "AUTHZ_SECRETLESS": "1",
        }
    )

    assert settings.last_good_policy == Path("/var/lib/mgw/authz-policy.json")
    assert (settings.node_id, settings.log_level, settings.is_secretless) == ("authz-3", "debug", True)


@pytest.mark.parametrize(
    ("environ", "message"),
    [
        ({}, "set MGW_CONTROLPLANE to host:port or MGW_POLICY_FILE"),
        ({**GIVEN, "MGW_LISTEN": "9001"}, "MGW_LISTEN"),
        ({**GIVEN, "MGW_METRICS_LISTEN": "unix:/x"}, "MGW_METRICS_LISTEN"),
        ({**GIVEN, "LOG_LEVEL": "loud"}, "LOG_LEVEL"),
    ],
)
def test_a_start_that_cannot_succeed_says_what_to_do(environ: dict[str, str], message: str) -> None:
    """In one line that names the variable."""
    with pytest.raises(StartFailed, match=message) as rejected:
        read_settings(environ)
    assert "\n" not in str(rejected.value)


@pytest.mark.parametrize(("secret", "expected"), [("x" * 32, True), ("é" * 16, True), ("", False), (None, False)])
def test_check_secret(secret: str | None, expected: bool) -> None:
    """32 bytes are enough; none at all may still be right."""
    assert check_secret({} if secret is None else {"JWT_SECRET": secret}) is expected


def test_a_short_secret_is_rejected_without_quoting_it() -> None:
    """With its length and a way to make a better one."""
    with pytest.raises(StartFailed, match=r"JWT_SECRET has 7 bytes.*openssl rand") as rejected:
        check_secret({"JWT_SECRET": "hunter2"})
    assert "hunter2" not in str(rejected.value)
    assert "openssl rand -base64 48" in str(secret_missing())


def test_settings_are_printed_with_secrets_masked() -> None:
    """Only whether there is one."""
    settings = read_settings(GIVEN)

    assert settings.shown({"JWT_SECRET": "hunter2" * 8})["jwt_secret"] == "***"
    assert settings.shown({})["jwt_secret"] is None
    assert "hunter2" not in str(settings.shown({"JWT_SECRET": "hunter2" * 8}))
