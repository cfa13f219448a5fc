"""The run directory's files and its lock."""

from __future__ import annotations

import os
import stat
from pathlib import Path

from controlplane.local.runfile import Lock, RunDirectory, make_secret, read_run, read_secret, write_private, write_run


def a_directory(tmp_path: Path) -> RunDirectory:
    directory = RunDirectory(tmp_path / "deep" / "run")
    directory.create()
    return directory


def test_what_holds_secrets_is_for_its_owner_only(tmp_path: Path) -> None:
    """Mode 0600, also where an older file was open to all, and whatever the umask."""
    directory = a_directory(tmp_path)
    directory.run_json.write_text("old")
    directory.run_json.chmod(0o644)
    old = os.umask(0)
    try:
        write_run(directory, {"api_token": "x"})
        make_secret(directory)
    finally:
        os.umask(old)

    assert stat.S_IMODE(directory.run_json.stat().st_mode) == 0o600
    assert stat.S_IMODE(directory.secret.stat().st_mode) == 0o600
    assert read_run(directory) == {"api_token": "x"}


def test_a_made_secret_is_long_and_stays(tmp_path: Path) -> None:
    """48 random bytes as text, the same when read again."""
    directory = a_directory(tmp_path)
    assert read_secret(directory) is None

    secret = make_secret(directory)

    assert (len(secret), read_secret(directory)) == (64, secret)


def test_a_file_is_replaced_at_once(tmp_path: Path) -> None:
    """A reader that opened the old file keeps reading the old text."""
    path = tmp_path / "f"
    write_private(path, "old")
    with path.open() as reader:
        write_private(path, "new")
        assert (reader.read(), path.read_text()) == ("old", "new")
    assert list(tmp_path.iterdir()) == [path]


def test_one_supervisor_a_directory(tmp_path: Path) -> None:
    """The lock is taken once, tells who has it, and is free when that one lets go."""
    directory = a_directory(tmp_path)
    first, second = Lock(directory), Lock(directory)
    assert second.holder() is None

    assert first.take()
    first.sign()
    assert not second.take()
    assert second.holder() == os.getpid()

    first.release()
    assert second.holder() is None
    assert second.take()


def test_no_run_json_is_no_run(tmp_path: Path) -> None:
    """An absent or broken file is nothing, rather than an error."""
    directory = a_directory(tmp_path)
    assert read_run(directory) is None
    directory.run_json.write_text("{")
    assert read_run(directory) is None
