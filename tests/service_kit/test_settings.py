"""Environment variables, each declared beside its field."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import pytest

from authz_service.settings import Settings as AuthzSettings
from ratelimit_service.settings import Settings as RatelimitSettings
from service_kit import settings as kit
from service_kit.errors import StartFailed
from service_kit.settings import ServiceSettings, read, shown, variable, variables
from service_kit.store_url import StoreUrl, read_store_url


@dataclass(frozen=True)
class Example:
    place: str = variable("X_PLACE", kit.address, "127.0.0.1:1")
    folder: Path | None = variable("X_FOLDER", kit.path, None)
    share: float = variable("X_SHARE", kit.number, 0.5)
    count: int = variable("X_COUNT", kit.whole, 3)
    is_on: bool = variable("X_ON", kit.switch, False)
    token: str = variable("X_TOKEN", kit.text, "", is_secret=True)
    store: StoreUrl = variable("X_STORE", read_store_url, read_store_url("none"), may_hold_password=True)


def test_what_is_given_is_read_and_the_rest_is_its_default() -> None:
    """An empty variable is an absent one, and spaces around a value are none of it."""
    given = {"X_PLACE": " unix:/run/x.sock ", "X_FOLDER": "/var", "X_SHARE": "", "X_COUNT": "7", "X_ON": "1"}

    assert read(Example, given) == Example("unix:/run/x.sock", Path("/var"), 0.5, 7, True)


def test_every_problem_is_told_at_once() -> None:
    """In one line, each with its variable and what would fit; a secret's value is left out."""
    given = {"X_PLACE": "nowhere", "X_SHARE": "-1", "X_COUNT": "1.5", "X_ON": "maybe"}
    with pytest.raises(StartFailed) as failed:
        read(Example, given)

    text = str(failed.value)
    assert "\n" not in text
    assert [part.partition(":")[0] for part in text.split("; ")] == [
        f"{name}={value!r}" for name, value in given.items()
    ]


def test_what_is_printed_holds_no_secret() -> None:
    """Of a secret, whether there is one; of a URL, all but its login, and nothing where it does not fit."""
    settings = read(Example, {"X_TOKEN": "hush", "X_STORE": "redis://user:hush@host/0"})

    assert "hush" not in f"{shown(settings)} {read(Example, {'X_TOKEN': 'hush'})!r}"
    assert (shown(settings)["token"], shown(Example())["token"]) == ("***", None)
    assert shown(settings)["store"] == "redis://***@host:6379/0"
    with pytest.raises(StartFailed, match=r"^X_STORE: the port of the host is no number") as failed:
        read(Example, {"X_STORE": "redis://user:hush"})
    assert "hush" not in str(failed.value)


SERVICES = (ServiceSettings, AuthzSettings, RatelimitSettings)


@pytest.mark.parametrize("service", SERVICES)
def test_the_services_share_names(service: type[ServiceSettings]) -> None:
    """A field has the same variable in both, and no variable is read into two fields."""
    names = {field: declared.name for field, declared in variables(service).items()}

    assert {field: names[field] for field in variables(ServiceSettings)} == {
        "listen": "MGW_LISTEN",
        "metrics_listen": "MGW_METRICS_LISTEN",
        "controlplane": "MGW_CONTROLPLANE",
        "node_id": "MGW_NODE_ID",
        "state_dir": "MGW_STATE_DIR",
        "policy_file": "MGW_POLICY_FILE",
        "transport": "MGW_TRANSPORT",
        "log_level": "LOG_LEVEL",
    }
    assert len(set(names.values())) == len(names)


@pytest.mark.parametrize("service", SERVICES)
def test_defaults_are_on_loopback_and_native(service: type[ServiceSettings]) -> None:
    """Nothing is open to others, and nothing is kept, until somebody says so."""
    settings = read(service, {})

    assert settings.listen.startswith("127.0.0.1:")
    assert (settings.transport, settings.metrics_listen, settings.last_good("policy.json")) == ("native", None, None)


def test_the_last_good_policy_is_in_the_state_directory() -> None:
    """Under the name that the service gives it."""
    settings = read(ServiceSettings, {"MGW_STATE_DIR": "/var/lib/mgw"})

    assert settings.last_good("policy.json") == Path("/var/lib/mgw/policy.json")


def test_without_a_source_of_policies_a_service_does_not_start() -> None:
    """The message names both variables; either is enough."""
    with pytest.raises(StartFailed, match=r"MGW_CONTROLPLANE .* MGW_POLICY_FILE"):
        read(ServiceSettings, {}).check_policy_source()

    read(ServiceSettings, {"MGW_CONTROLPLANE": "cp:18000"}).check_policy_source()
    read(ServiceSettings, {"MGW_POLICY_FILE": "/policy.json"}).check_policy_source()


@pytest.mark.parametrize("address", ["", "host", "host:", ":80", "host:http", "host:65536", "host:1" + "0" * 5000])
def test_what_is_no_address_is_told(address: str) -> None:
    """A host, a colon and a port up to 65535; IPv6 in brackets."""
    with pytest.raises(ValueError, match="host:port"):
        kit.host_port(address)
    assert kit.host_port("[::1]:65535") == "[::1]:65535"
