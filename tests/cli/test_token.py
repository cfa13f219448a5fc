"""`mgw token`."""

from __future__ import annotations

import time
from pathlib import Path

import jwt
import pytest

from controlplane.cli.app import run
from controlplane.local.exits import FAILED
from controlplane.local.runfile import RunDirectory, make_secret

SECRET = "0123456789abcdef0123456789abcdef"


def test_a_token_is_signed_with_the_environments_secret(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    """JWT_SECRET goes before a directory's secret; standard output has the token and nothing else."""
    monkeypatch.setenv("JWT_SECRET", SECRET)
    make_secret(RunDirectory(tmp_path))

    assert run(["token", "--sub", "ann", "--tier", "pro", "--ttl", "60", "--dir", str(tmp_path)]) == 0

    out, err = capsys.readouterr()
    claims = jwt.decode(out.strip(), SECRET, algorithms=["HS256"])
    assert (claims["sub"], claims["tier"], claims["exp"] - claims["iat"], err) == ("ann", "pro", 60, "")
    assert abs(claims["iat"] - time.time()) < 5


def test_a_token_is_signed_with_a_directorys_secret(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    """Without JWT_SECRET, the secret is the one that `mgw up` made."""
    monkeypatch.delenv("JWT_SECRET", raising=False)
    secret = make_secret(RunDirectory(tmp_path))

    assert run(["token", "--sub", "ann", "--tier", "pro", "--dir", str(tmp_path)]) == 0

    assert jwt.decode(capsys.readouterr().out.strip(), secret, algorithms=["HS256"])["sub"] == "ann"


def test_no_secret_is_an_error(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    """There is no default secret."""
    monkeypatch.delenv("JWT_SECRET", raising=False)

    assert run(["token", "--sub", "ann", "--tier", "pro", "--dir", str(tmp_path)]) == FAILED

    out, err = capsys.readouterr()
    assert out == ""
    assert "JWT_SECRET" in err
