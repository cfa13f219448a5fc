"""What of the caller's environment a gateway that runs does not take over."""

from __future__ import annotations

from pathlib import Path

import pytest

from controlplane.local.kept_environment import digests, kept, read_document

DOCUMENT = 'secret: "${OWN_KEY}"\nurl: "${A_PLACE:-http://a}"\n'


@pytest.mark.parametrize(
    ("here", "names"),
    [
        ({"JWT_SECRET": "old"}, []),
        ({"JWT_SECRET": "new"}, ["JWT_SECRET"]),
        ({"JWT_SECRET": ""}, []),
        ({"SONA_SERVICE_URL": "http://b", "NEXT_SECRET": "n"}, ["NEXT_SECRET", "SONA_SERVICE_URL"]),
        ({"OWN_KEY": "n", "A_PLACE": "http://b"}, ["A_PLACE", "OWN_KEY"]),
        ({"REDIS_URL": "embedded"}, []),
        ({"REDIS_URL": "redis://127.0.0.1:1/0"}, []),
        ({"REDIS_URL": "redis://elsewhere"}, ["REDIS_URL"]),
        ({"PWD": "/elsewhere", "SHLVL": "3", "EDITOR": "vi"}, []),
    ],
    ids=str,
)
def test_what_is_another_value_by_now(here: dict[str, str], names: list[str]) -> None:
    """Of the variables that a gateway reads; what is not set says nothing."""
    started = [{"REDIS_URL": "embedded"}, {"JWT_SECRET": "old"}, {"REDIS_URL": "redis://127.0.0.1:1/0"}]

    assert kept(digests(here), started, DOCUMENT) == names


def test_no_value_travels() -> None:
    """Digests are compared."""
    assert "hunter2" not in str(digests({"JWT_SECRET": "hunter2"}))


def test_a_document_that_cannot_be_read(tmp_path: Path) -> None:
    """It refers to nothing."""
    binary = tmp_path / "binary"
    binary.write_bytes(b"\xff")

    assert [read_document(path) for path in (None, str(tmp_path / "none"), str(binary))] == ["", "", ""]
