"""The environment, read once."""

from __future__ import annotations

from pathlib import Path

import pytest

from ratelimit_service.settings import read_settings
from service_kit.errors import StartFailed
from service_kit.settings import shown

ENOUGH = {"MGW_CONTROLPLANE": "127.0.0.1:18000"}


def test_defaults() -> None:
    """A control plane is enough; an empty variable is an absent one."""
    settings = read_settings(ENOUGH | {"MGW_STATE_DIR": "", "LOG_LEVEL": "WARNING"})

    assert (str(settings.redis_url), settings.last_good_policy, settings.log_level) == (
        "redis://127.0.0.1:6379/0",
        None,
        "warning",
    )


def test_last_good_policy() -> None:
    """The last good policy is kept in the state directory."""
    assert read_settings(ENOUGH | {"MGW_STATE_DIR": "/s"}).last_good_policy == Path("/s/ratelimit-policy.json")


@pytest.mark.parametrize(
    ("environment", "says"),
    [
        ({}, "MGW_CONTROLPLANE"),
        (ENOUGH | {"MGW_LISTEN": "9002"}, "MGW_LISTEN"),
        (ENOUGH | {"MGW_METRICS_LISTEN": "host:99999"}, "MGW_METRICS_LISTEN"),
        (ENOUGH | {"LOG_LEVEL": "loud"}, "LOG_LEVEL"),
        (ENOUGH | {"REDIS_URL": "http://u:secret@h"}, "REDIS_URL"),
        (ENOUGH | {"MGW_STORE_TIMEOUT_SECONDS": "0"}, "MGW_STORE_TIMEOUT_SECONDS"),
    ],
)
def test_refused(environment: dict[str, str], says: str) -> None:
    """What is wrong is named, without its password."""
    with pytest.raises(StartFailed, match=says) as refused:
        read_settings(environment)
    assert "secret" not in str(refused.value)


def test_passwords_are_not_printed() -> None:
    """What is told at start of the store's URL holds no login."""
    told = shown(read_settings(ENOUGH | {"REDIS_URL": "rediss://user:secret@host/0"}))

    assert told["redis_url"] == "rediss://***@host:6379/0"
