"""Environment variables, each declared beside its field."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import pytest

from service_kit import settings as kit
from service_kit.errors import StartFailed
from service_kit.settings import mask_password, read, shown, variable


@dataclass(frozen=True)
class Example:
    place: str = variable("X_PLACE", kit.address, "127.0.0.1:1")
    folder: Path | None = variable("X_FOLDER", kit.path, None)
    share: float = variable("X_SHARE", kit.number, 0.5)
    count: int = variable("X_COUNT", kit.whole, 3)
    is_on: bool = variable("X_ON", kit.switch, False)
    token: str = variable("X_TOKEN", kit.text, "", is_secret=True)
    store: str = variable("X_STORE", kit.text, "")


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
    """Of a secret, whether there is one; of a URL, all but its password."""
    settings = read(Example, {"X_TOKEN": "hush", "X_STORE": "redis://user:hush@host/0"})

    assert "hush" not in f"{shown(settings)} {read(Example, {'X_TOKEN': 'hush'})!r}"
    assert (shown(settings)["token"], shown(Example())["token"]) == ("***", None)
    assert mask_password("127.0.0.1:80") == "127.0.0.1:80"
