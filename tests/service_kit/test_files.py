"""Files that are written whole or not at all."""

from __future__ import annotations

from pathlib import Path

import pytest

from service_kit.files import write_atomically


def names(folder: Path) -> list[str]:
    return [path.name for path in folder.iterdir()]


def test_a_file_is_written_for_this_user_alone(tmp_path: Path) -> None:
    """In UTF-8, with the folders that are missing, and with no other file beside it."""
    path = tmp_path / "state" / "deep" / "policy.json"
    write_atomically(path, "é")

    assert path.read_bytes() == "é".encode()
    assert path.stat().st_mode & 0o777 == 0o600
    assert names(path.parent) == ["policy.json"]


def test_an_old_file_is_replaced_and_not_written_into(tmp_path: Path) -> None:
    """Who has the old one open reads it to its end."""
    path = tmp_path / "policy.json"
    write_atomically(path, "old and longer")
    with path.open(encoding="utf-8") as old:
        write_atomically(path, "new")

        assert (old.read(), path.read_text(encoding="utf-8")) == ("old and longer", "new")


def test_a_text_that_cannot_be_written_leaves_the_old_file(tmp_path: Path) -> None:
    """And nothing half written beside it."""
    path = tmp_path / "policy.json"
    write_atomically(path, "old")
    with pytest.raises(UnicodeEncodeError):
        write_atomically(path, "half \ud800")

    assert path.read_text(encoding="utf-8") == "old"
    assert names(tmp_path) == ["policy.json"]


def test_a_place_that_cannot_be_replaced_leaves_nothing(tmp_path: Path) -> None:
    """A folder is in the way: OSError, and no temporary file."""
    path = tmp_path / "policy.json"
    path.mkdir()
    with pytest.raises(OSError, match=r"policy\.json"):
        write_atomically(path, "new")

    assert names(tmp_path) == ["policy.json"]
