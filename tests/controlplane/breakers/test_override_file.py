"""The file that keeps what operators force over a restart."""

from __future__ import annotations

import json
import os
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, get_args

import pytest
from hypothesis import given
from hypothesis import strategies as st

from controlplane.breakers.override_file import NAME, OverrideFile
from controlplane.breakers.registry import Force, Override
from controlplane.errors import StateUnwritable

WORDS = st.text(st.characters(blacklist_categories=["Cs"]), max_size=30)
OVERRIDES = st.builds(
    Override, force=st.sampled_from(get_args(Force)), reason=WORDS, by=WORDS, at=st.floats(0, 253_402_300_799)
)
OPEN = Override("open", "it burns", "admin", 1_790_000_000.25)
KEPT = {"force": "open", "reason": "", "by": "admin", "at": 0}


@given(st.dictionaries(WORDS, OVERRIDES, max_size=4))
def test_what_was_saved_is_loaded(forced: dict[str, Override]) -> None:
    """By another process too, whatever was written as the reason."""
    with TemporaryDirectory() as folder:
        OverrideFile(Path(folder)).save(forced)
        assert OverrideFile(Path(folder)).load() == forced


def test_the_last_save_is_all_there_is(tmp_path: Path) -> None:
    """It replaces what was there, and nothing else is left in the folder."""
    file = OverrideFile(tmp_path / "state")
    file.save({"a": OPEN, "b": OPEN})
    file.save({"b": OPEN})

    assert file.load() == {"b": OPEN}
    assert [path.name for path in (tmp_path / "state").iterdir()] == [NAME]


def test_without_a_file_nothing_is_forced(tmp_path: Path) -> None:
    """A folder that is not there yet is made by the first save."""
    file = OverrideFile(tmp_path / "a" / "b")
    assert file.load() == {}

    file.save({})

    assert (tmp_path / "a" / "b" / NAME).exists()
    assert file.load() == {}


def test_without_a_directory_nothing_is_kept() -> None:
    """And nothing can fail."""
    nowhere = OverrideFile(None)
    nowhere.save({"a": OPEN})

    assert nowhere.load() == {}


def test_people_can_read_it(tmp_path: Path) -> None:
    """One service after the other by name, indented, and for its owner alone."""
    OverrideFile(tmp_path).save({"b": OPEN, "a": OPEN})

    text = (tmp_path / NAME).read_text()
    assert list(json.loads(text)) == ["a", "b"]
    assert text.startswith('{\n  "a": {\n    "force": "open",\n    "reason": "it burns"')
    assert (tmp_path / NAME).stat().st_mode & 0o077 == 0


@pytest.mark.parametrize(
    ("text", "says"),
    [
        (b"", "Invalid JSON"),
        (b"{", "Invalid JSON"),
        (b"\xff", "Invalid JSON"),
        (b"[" * 100_000, "Invalid JSON"),
        (b"null", "Input should be an object"),
        (b"[]", "Input should be an object"),
        (b'{"a": null}', "a: Input should be"),
        (b'{"a": {"force": "open"}}', "a.reason: Field required; a.by: Field required; a.at: Field required"),
        (json.dumps({"a": KEPT | {"force": "ajar"}}).encode(), "a.force: Input should be 'auto', 'open' or 'closed'"),
        (json.dumps({"a": KEPT | {"force": ["open"]}}).encode(), "a.force: Input should be"),
        (json.dumps({"a": KEPT, "b": KEPT | {"by": 1}}).encode(), "b.by: Input should be a valid string"),
        (json.dumps({"a": KEPT | {"at": "noon"}}).encode(), "a.at: Input should be a valid number"),
        (json.dumps({"a": KEPT | {"at": float("nan")}}).encode(), "a.at: Input should be"),
        (json.dumps({"a": KEPT | {"at": 1e300}}).encode(), "a.at: Input should be less than"),
        (json.dumps({"a": KEPT | {"at": -1}}).encode(), "a.at: Input should be greater than or equal to 0"),
        (json.dumps({"a": KEPT | {"until": 5}}).encode(), "a.until: Extra inputs are not permitted"),
    ],
    ids=lambda value: str(value)[:30],
)
def test_a_file_that_makes_no_sense_is_not_guessed_at(tmp_path: Path, text: bytes, says: str) -> None:
    """The message names the file, what is wrong with it, and what to do."""
    (tmp_path / NAME).write_bytes(text)

    with pytest.raises(StateUnwritable) as caught:
        OverrideFile(tmp_path).load()

    message = str(caught.value)
    assert message.startswith(f"{tmp_path / NAME}: ")
    assert message.endswith("; repair it, or remove it to force nothing")
    assert says in message
    assert (tmp_path / NAME).read_bytes() == text


JSON: Any = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5) | st.sampled_from(get_args(Force)),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=3),
    max_leaves=5,
)


@given(st.dictionaries(st.just("a"), st.fixed_dictionaries(dict.fromkeys(KEPT, JSON)) | JSON))
def test_whatever_it_holds_it_is_loaded_or_refused(values: Any) -> None:
    """What is loaded can be saved again, and shown."""
    with TemporaryDirectory() as folder:
        (Path(folder) / NAME).write_text(json.dumps(values))
        try:
            forced = OverrideFile(Path(folder)).load()
        except StateUnwritable:
            return
        OverrideFile(Path(folder)).save(forced)
        assert OverrideFile(Path(folder)).load() == forced


def test_a_file_that_cannot_be_read(tmp_path: Path) -> None:
    """A folder in its place is one of the ways; the system's own words are told."""
    (tmp_path / NAME).mkdir()

    with pytest.raises(StateUnwritable, match="Is a directory"):
        OverrideFile(tmp_path).load()


def test_a_disk_that_takes_nothing(tmp_path: Path) -> None:
    """What cannot be kept is told, with the file's name."""
    (tmp_path / "file").write_text("")
    path = tmp_path / "file" / "below"

    with pytest.raises(StateUnwritable) as caught:
        OverrideFile(path).save({"a": OPEN})

    assert str(caught.value).startswith(f"{path / NAME} cannot be written: ")


def test_a_save_that_fails_leaves_what_was_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The old file whole, and no half of a new one."""
    file = OverrideFile(tmp_path)
    file.save({"a": OPEN})

    def full(_descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(StateUnwritable, match="No space left"):
        file.save({})

    assert file.load() == {"a": OPEN}
    assert [path.name for path in tmp_path.iterdir()] == [NAME]
