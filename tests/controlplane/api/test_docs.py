"""The API's page: it works without any network but the control plane itself."""

from __future__ import annotations

import hashlib
import re
import subprocess
import threading
import time
from collections.abc import Iterator
from importlib import resources
from pathlib import Path
from typing import Any

import httpx2
import pytest
import uvicorn

from controlplane.api.app import create_app
from controlplane.api.docs import FILES
from tests.support.ports import free_port

NOTHING: Any = None
STATIC = resources.files("controlplane.api").joinpath("static")


@pytest.fixture(scope="module")
def api() -> Iterator[str]:
    """The application on a port, as a browser meets it."""
    app = create_app(NOTHING, NOTHING, NOTHING, NOTHING, NOTHING)
    port = free_port()
    server = uvicorn.Server(uvicorn.Config(app, port=port, log_config=None))
    thread = threading.Thread(target=server.run)
    thread.start()
    deadline = time.monotonic() + 20
    while not server.started and time.monotonic() < deadline:
        thread.join(0.01)
    yield f"http://127.0.0.1:{port}"
    server.should_exit = True
    thread.join()


def test_the_page_names_only_its_own_files(api: str) -> None:
    """Nothing is loaded from elsewhere, and the browser is told to refuse what would be."""
    page = httpx2.get(f"{api}/docs")
    named = re.findall(r'(?:src|href)="([^"]+)"', page.text)

    assert {name.removeprefix("docs/") for name in named if not name.startswith("data:")} == set(FILES)
    policy = page.headers["content-security-policy"]
    assert "default-src 'none'" in policy and "script-src 'self'" in policy and "http" not in policy
    for name, media_type in FILES.items():
        response = httpx2.get(f"{api}/docs/{name}")
        assert response.status_code == 200 and response.headers["content-type"].startswith(media_type)
    assert httpx2.get(f"{api}/docs/other.js").status_code == 404


def test_the_files_are_those_that_were_pinned() -> None:
    """They are the package's own, by their digests."""
    pinned = re.findall(r"([0-9a-f]{64})  (\S+)", STATIC.joinpath("README.md").read_text())

    assert {name for _, name in pinned} == set(FILES) - {"docs.js"}
    for digest, name in pinned:
        assert hashlib.sha256(STATIC.joinpath(name).read_bytes()).hexdigest() == digest, name


@pytest.mark.browser
def test_a_browser_shows_every_operation_and_asks_nobody_else(api: str, tmp_path: Path) -> None:
    """In Chromium, which can resolve no name: the page is rendered from the gateway's own description alone."""
    log = tmp_path / "net.json"
    done = subprocess.run(
        [
            "/usr/bin/chromium", "--headless", "--no-sandbox", "--disable-gpu", f"--user-data-dir={tmp_path}/profile",
            "--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE 127.0.0.1", "--virtual-time-budget=20000",
            "--disable-background-networking", "--disable-component-update", "--no-first-run",
            f"--log-net-log={log}", "--dump-dom", f"{api}/docs",
        ],
        capture_output=True, text=True, timeout=100, check=True,
    )  # fmt: skip
    operations = httpx2.get(f"{api}/openapi.json").json()["paths"]

    shown = done.stdout
    for path in operations:
        assert path.replace("/", "/\u200b") in shown or path in shown, path
    asked = set(re.findall(r'"url":"(https?://[^"/]+)', log.read_text()))
    assert {each for each in asked if "127.0.0.1" in each} == {api}
