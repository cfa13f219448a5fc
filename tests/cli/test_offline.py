"""`mgw validate` and `mgw render`: a document from a file, judged without any running part."""

from __future__ import annotations

import io
import json
from pathlib import Path
from typing import Any

import pytest

from controlplane.cli.app import run
from controlplane.local.exits import FAILED, OK, UNAVAILABLE, USAGE
from tests.support.configs import DEFAULT, default_text, values

Capture = pytest.CaptureFixture[str]
BAD = default_text().replace("trusted_hops: 0", "trusted_hobs: 0").replace("service: sona, auth", "service: x, auth")


@pytest.fixture(autouse=True)
def environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing of whoever runs the tests."""
    for name in ("MGW_AUTHZ_ADDRESSES", "MGW_RATELIMIT_ADDRESSES", "JWT_SECRET", "API_GATEWAY_PORT"):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture
def bad(tmp_path: Path) -> Path:
    """A document with two mistakes."""
    path = tmp_path / "bad.yaml"
    path.write_text(BAD)
    return path


def test_a_good_document_is_valid(capsys: Capture) -> None:
    """By Envoy too. It is said to people; standard output is for problems."""
    assert run(["validate", "-f", str(DEFAULT)]) == OK

    assert capsys.readouterr() == ("", f"{DEFAULT} is valid\n")


def test_every_problem_has_its_place(bad: Path, capsys: Capture) -> None:
    """One a line, as editors and compilers have them, with status 1."""
    assert run(["validate", "-f", str(bad)]) == FAILED

    out, err = capsys.readouterr()
    lines = [BAD[: BAD.index(each)].count("\n") + 1 for each in ("trusted_hobs", "service: x,")]
    assert [line.split(" ", 1)[0].rpartition(":")[0].rpartition(":")[0] for line in out.splitlines()] == [
        f"{bad}:{line}" for line in lines
    ]
    assert out.splitlines()[0].endswith(" listener.trusted_hobs: no such key")
    assert err == ""


def test_problems_for_machines(bad: Path, capsys: Capture) -> None:
    """The same as JSON on standard output, with the same status; and an empty list where all is well."""
    assert run(["validate", "-f", str(bad), "--json"]) == FAILED
    found = json.loads(capsys.readouterr().out)
    assert run(["validate", "-f", str(DEFAULT), "--json"]) == OK
    well = json.loads(capsys.readouterr().out)

    assert (found["valid"], [each["path"] for each in found["problems"]]) == (
        False,
        ["listener.trusted_hobs", "routes.16.service"],
    )
    assert all(each["line"] and each["column"] and each["message"] for each in found["problems"])
    assert (well["valid"], well["problems"]) == (True, [])


def test_a_document_from_standard_input(monkeypatch: pytest.MonkeyPatch, capsys: Capture) -> None:
    """`-` is what was piped in."""
    monkeypatch.setattr("sys.stdin", io.StringIO(BAD))

    assert run(["validate", "-f", "-"]) == FAILED
    assert capsys.readouterr().out.startswith("-:")


@pytest.mark.parametrize("verb", ["validate", "render"])
@pytest.mark.parametrize("content", [None, b"\xff\xfe"])
def test_a_file_that_cannot_be_read(tmp_path: Path, capsys: Capture, verb: str, content: bytes | None) -> None:
    """It is named, with the system's words; status 69, as it is missing."""
    path = tmp_path / "gateway.yaml"
    if content is not None:
        path.write_bytes(content)

    assert run([verb, "-f", str(path)]) == UNAVAILABLE

    out, err = capsys.readouterr()
    assert (out, err.startswith(f"mgw: {path}: ")) == ("", True)


def test_without_an_envoy_nothing_is_called_valid(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: Capture
) -> None:
    """Status 69: how far it came is said."""
    monkeypatch.setenv("MGW_ENVOY_BIN", str(tmp_path / "envoy"))

    assert run(["validate", "-f", str(DEFAULT)]) == UNAVAILABLE

    out, err = capsys.readouterr()
    assert out == ""
    assert err.startswith(f"mgw: the model accepts {DEFAULT}, but Envoy could not judge it: ")


@pytest.mark.parametrize("verb", ["validate", "render"])
def test_an_environment_that_cannot_be(monkeypatch: pytest.MonkeyPatch, capsys: Capture, verb: str) -> None:
    """The variable is named, in one line."""
    monkeypatch.setenv("MGW_AUTHZ_ADDRESSES", "http://authz:18010")

    assert run([verb, "-f", str(DEFAULT)]) == USAGE

    out, err = capsys.readouterr()
    assert out == ""
    assert err.count("\n") == 1
    assert "MGW_AUTHZ_ADDRESSES" in err
    assert "HOST:PORT" in err


def rendered(capsys: Capture, *words: str) -> Any:
    assert run(["render", "-f", str(DEFAULT), *words]) == OK
    return json.loads(capsys.readouterr().out)


def test_what_envoy_would_be_told(monkeypatch: pytest.MonkeyPatch, capsys: Capture) -> None:
    """With the addresses of the environment, and the listener's port of the document."""
    monkeypatch.setenv("MGW_AUTHZ_ADDRESSES", "authz-0:1,authz-1:2")
    monkeypatch.setenv("API_GATEWAY_PORT", "9000")

    static = rendered(capsys)["static_resources"]

    assert static["listeners"][0]["address"]["socket_address"]["port_value"] == 9000
    assert {"discovery", "sona", "sync", "auth", "mgw-authz"} <= {each["name"] for each in static["clusters"]}
    authz = next(each for each in static["clusters"] if each["name"] == "mgw-authz")
    assert str(authz).count("'authz-0'") == str(authz).count("'authz-1'") == 1


def test_what_the_services_would_be_told(monkeypatch: pytest.MonkeyPatch, capsys: Capture) -> None:
    """Each its policy; limits are shared among the replicas of the environment. No secret is in them."""
    monkeypatch.setenv("MGW_RATELIMIT_ADDRESSES", "a:1,b:1,c:1")
    monkeypatch.setenv("JWT_SECRET", "hush" * 8)

    policies = rendered(capsys, "--to", "policies")

    assert set(policies) == {"authz", "ratelimit"}
    assert policies["ratelimit"]["replicas"] == 3
    assert "hush" not in json.dumps(policies)


def test_a_bad_document_is_not_rendered(bad: Path, capsys: Capture) -> None:
    """Its problems go to standard error: standard output is for what is piped on."""
    assert run(["render", "-f", str(bad)]) == FAILED

    out, err = capsys.readouterr()
    assert out == ""
    assert [line.startswith(f"{bad}:") for line in err.splitlines()] == [True, True]


def test_the_smallest_document_is_rendered(tmp_path: Path, capsys: Capture) -> None:
    """As JSON, from a name that says nothing of it."""
    path = tmp_path / "document"
    path.write_text(json.dumps(values()))

    assert run(["render", "-f", str(path)]) == OK
    assert "10.0.0.1" in capsys.readouterr().out
