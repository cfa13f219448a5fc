"""Tokens signed by hand are tokens, and every line of a crowd's file is whole."""

from __future__ import annotations

from pathlib import Path

import jwt

from tests.load.callers import SECRET, five_callers, script_at_random, token


def test_a_hand_made_token_is_a_real_one() -> None:
    """PyJWT reads it and finds the subject and the tier."""
    claims = jwt.decode(token("user-7", "pro"), SECRET, ["HS256"])

    assert (claims["sub"], claims["tier"]) == ("user-7", "pro")


def test_the_five_callers_are_five_with_one_anonymous() -> None:
    """Four tiers are used: three by tokens, one by their absence."""
    tokens = five_callers()

    assert len(set(tokens)) == 5
    assert {jwt.decode(text, SECRET, ["HS256"])["tier"] for text in tokens if text} == {"free", "pro", "enterprise"}


def test_a_crowd_has_one_width(tmp_path: Path) -> None:
    """wrk finds caller N at N times the width: shorter tokens are filled up, none is cut."""
    tokens = [token(f"user-{index}", "free") for index in (1, 10, 1000)]

    script = script_at_random(tmp_path, tokens)

    crowd = (tmp_path / "crowd.txt").read_text()
    width = len(crowd) // 3
    assert [crowd[at : at + width].rstrip() for at in range(0, len(crowd), width)] == tokens
    assert f"WIDTH, COUNT, PATH = {width}, 3," in script.read_text()
