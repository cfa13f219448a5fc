"""Where the files are: in a checkout, and in what a wheel installs."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from controlplane.local import resources
from controlplane.local.exits import UNAVAILABLE, Failure
from tests.support.configs import DEFAULT, ROOT

FILES: list[tuple[Callable[[], Path], str, Path]] = [
    (resources.bootstrap_template, "bootstrap.yaml", ROOT / "envoy" / "bootstrap.yaml"),
    (resources.default_config, "gateway.yaml", DEFAULT),
]


@pytest.mark.parametrize(("find", "_installed", "here"), FILES)
def test_a_checkout_has_each_file_once(find: Callable[[], Path], _installed: str, here: Path) -> None:
    """It is the file that people edit, and no copy stands beside the code."""
    assert find() == here
    assert here.is_file()
    assert not (Path(resources.__file__).parent / "data").exists()


@pytest.mark.parametrize(("find", "installed", "here"), FILES)
def test_an_installed_copy_comes_first(
    find: Callable[[], Path], installed: str, here: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A folder of that name is no copy."""
    monkeypatch.setattr(resources, "_INSTALLED", tmp_path)
    (tmp_path / installed).mkdir()
    assert find() == here

    (tmp_path / installed).rmdir()
    (tmp_path / installed).write_text("installed")

    assert find().read_text() == "installed"


def test_the_wheel_carries_a_copy_of_each() -> None:
    """Under the name that is looked for."""
    carried = (ROOT / "pyproject.toml").read_text()

    for _, installed, here in FILES:
        assert f'"{here.relative_to(ROOT)}" = "controlplane/local/data/{installed}"' in carried


def test_a_checkout_is_known(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its root is where the code is; among installed packages there is none, and the message says so."""
    assert resources.checkout() == ROOT

    monkeypatch.setattr(resources, "PACKAGES", tmp_path)
    with pytest.raises(Failure, match="works on a checkout, and this mgw was installed from a wheel") as caught:
        resources.checkout()

    assert caught.value.status == UNAVAILABLE
