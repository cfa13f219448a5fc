"""The operator's hand on a gateway under test: put a document, and see when it is in force."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from typing import Any
from urllib.error import HTTPError
from urllib.request import ProxyHandler, Request, build_opener

from tests.load.targets import Document, Target, status_of
from tests.support.waiting import eventually

_opener = build_opener(ProxyHandler({}))


def read_document(target: Target) -> tuple[Document, str]:
    """The document in force and its ETag."""
    with _opener.open(_request(target, {"Accept": "application/json"}), timeout=60) as answer:
        return json.load(answer), answer.headers["ETag"]


def put_document(target: Target, document: Document, etag: str) -> str:
    """Replace the document; the new ETag. RuntimeError says why it was refused."""
    headers = {"Content-Type": "application/json", "If-Match": etag, "X-Change-Reason": "load test"}
    request = _request(target, headers, json.dumps(document).encode())
    try:
        with _opener.open(request, timeout=60) as answer:
            return str(answer.headers["ETag"])
    except HTTPError as error:
        raise RuntimeError(f"the document was refused: {error.code} {error.read()[:500]!r}") from error


def _request(target: Target, headers: dict[str, str], body: bytes | None = None) -> Request:
    authorization = {"Authorization": f"Bearer {target.run['api_token']}"}
    method = "GET" if body is None else "PUT"
    return Request(f"{target.run['api']}/v1/config", data=body, method=method, headers=headers | authorization)


def seconds_until(holds: Callable[[], bool], began: float, patience: float = 30) -> float:
    """How long after `began` (monotonic) it held for the first time, looked at every 2 ms."""
    if not eventually(holds, patience, every=0.002):
        raise TimeoutError(f"not in force after {patience} s")
    return time.monotonic() - began


def put_and_watch(target: Target, change: Callable[[Document], Any], path: str) -> dict[str, float]:
    """Milliseconds from sending a change to the API's answer, and until `path`, a new route, is served."""
    document, etag = read_document(target)
    change(document)
    began = time.monotonic()
    put_document(target, document, etag)
    answered = time.monotonic() - began
    live = seconds_until(lambda: status_of(target.url + path) == 200, began)
    return {"answered_ms": round(1000 * answered), "served_ms": round(1000 * live)}
