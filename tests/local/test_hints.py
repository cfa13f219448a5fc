"""What `mgw up --demo` prints for trying it."""

from __future__ import annotations

import re
import subprocess
import time

import jwt
import pytest

from controlplane.config.model import Limit
from controlplane.local.hints import HINT_TTL_SECONDS, TIERS, demo_hints
from tests.support.configs import default_config

GATEWAY = "http://127.0.0.1:4321"
SECRET = "a secret of more than thirty-two bytes"


def commands(text: str) -> str:
    """What is below the first line, which is for people alone."""
    return text.partition("\n\n")[2]


def test_each_tiers_token_is_good_for_a_day() -> None:
    """Of a caller of its own, signed with the gateway's secret."""
    began = time.time()
    tokens = dict(re.findall(r"^([A-Z]+)=(\S+)$", demo_hints(GATEWAY, SECRET), re.M))

    claims = {name: jwt.decode(token, SECRET, algorithms=["HS256"]) for name, token in tokens.items()}

    assert {name: each["tier"] for name, each in claims.items()} == {tier.upper(): tier for tier in TIERS}
    assert len({each["sub"] for each in claims.values()}) == len(TIERS)
    assert all(began - 1 <= each["exp"] - HINT_TTL_SECONDS <= time.time() for each in claims.values())
    assert HINT_TTL_SECONDS == 24 * 60 * 60


def test_tokens_are_for_every_tier_but_that_of_nobody() -> None:
    """As the default document has them."""
    assert {*TIERS, "anonymous"} == set(default_config().limits.tiers)


def test_a_shell_takes_all_of_it() -> None:
    """Pasted as a whole: every line is a command, an assignment or a comment."""
    done = subprocess.run(["sh", "-n"], input=commands(demo_hints(GATEWAY, SECRET)), text=True, check=False)

    assert done.returncode == 0


def asked() -> dict[str, list[str]]:
    """By each comment's status, the paths that its commands ask for."""
    found: dict[str, list[str]] = {}
    status = ""
    for line in commands(demo_hints(GATEWAY, SECRET)).splitlines():
        status = match[1] if (match := re.match(r"# (\d+): ", line)) else status
        found.setdefault(status, []).extend(re.findall(rf"{re.escape(GATEWAY)}(\S+?)(?:;|$)", line))
    del found[""]
    return found


def test_commands_show_what_their_comments_say() -> None:
    """By the default document's routes: what is open, what needs a token, and what is not there."""
    config = default_config()
    needs = {re.sub(r"\{\w+\}", "[^/]+", route.match.path): route.auth for route in config.routes}

    def auth(path: str) -> str | None:
        return next((each for pattern, each in needs.items() if re.fullmatch(pattern, path)), None)

    paths = asked()

    assert [auth(path) for path in paths["200"]] == ["optional", "required"]
    assert [auth(path) for path in paths["401"]] == ["required"]
    assert [auth(path) for path in paths["404"]] == [None]
    assert [auth(path) for path in paths["429"]] == ["optional"] * 2


def test_the_loop_asks_for_more_than_a_free_caller_has() -> None:
    """And the numbers in the comment are the document's."""
    text = demo_hints(GATEWAY, SECRET)
    free = default_config().limits.tiers["free"]
    assert isinstance(free, Limit)

    assert f"the free tier has {free.burst} requests at once, then {free.rps:g} a second" in text
    (times,) = re.findall(r"seq (\d+)", text)
    assert free.burst < int(times) < 2 * free.burst


@pytest.mark.parametrize("gateway", ["http://127.0.0.1:1", "http://[::1]:8080", "http://gateway.example"])
def test_every_command_goes_to_this_gateway(gateway: str) -> None:
    """Wherever it listens."""
    urls = re.findall(r"https?://[^\s;/]+", demo_hints(gateway, SECRET))

    assert {url.rstrip(".") for url in urls} == {gateway}
