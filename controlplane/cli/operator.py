"""The operator's API from the command line: which one, with which token, and what its errors mean for the shell."""

from __future__ import annotations

import json
import os
from http.client import HTTPException
from pathlib import Path
from typing import Any
from urllib.error import HTTPError, URLError
from urllib.request import HTTPRedirectHandler, ProxyHandler, Request, build_opener

from controlplane.local.exits import FAILED, UNAVAILABLE, USAGE, Failure
from controlplane.local.runfile import RunDirectory, read_run

TIMEOUT_SECONDS = 30.0


def call(method: str, path: str, directory: Path, body: dict[str, Any] | None = None) -> Any:
    """The API's answer, from MGW_API_URL with MGW_API_TOKEN, or else the gateway in a directory.

    Raises Failure: with 64 for what is no URL, with 69 where nobody answers as the API does, with 1 where the API
    refuses, in the words of its problem document.
    """
    url, token = _where(directory)
    headers = {"Authorization": f"Bearer {token}", "Content-Type": "application/json"}
    data = None if body is None else json.dumps(body).encode()
    try:
        request = Request(f"{url.rstrip('/')}{path}", data, headers, method=method)
        with build_opener(ProxyHandler({}), _NoRedirects).open(request, timeout=TIMEOUT_SECONDS) as answer:
            return json.load(answer)
    except HTTPError as error:
        raise Failure(_problem(error), FAILED) from error
    except (URLError, HTTPException, OSError, ValueError) as error:  # ValueError: no URL, or no JSON
        raise Failure(f"{url} does not answer: {error}", UNAVAILABLE) from error


class _NoRedirects(HTTPRedirectHandler):
    """The operator's token goes where the operator said, and nowhere else."""

    def redirect_request(self, *_: Any) -> None:
        """None: the redirect itself is the answer."""


def _where(directory: Path) -> tuple[str, str]:
    if url := os.environ.get("MGW_API_URL"):
        if not url.startswith(("http://", "https://")):
            raise Failure(f"MGW_API_URL is {url!r}, and not http://HOST:PORT", USAGE)
        return url, os.environ.get("MGW_API_TOKEN", "")
    run = read_run(RunDirectory(directory.absolute()))
    if run is None:
        raise Failure(f"nothing runs in {directory}: name a gateway's --dir, or set MGW_API_URL", UNAVAILABLE)
    return str(run["api"]), str(run["api_token"])


def _problem(error: HTTPError) -> str:
    try:
        said = json.load(error)
        found = [f"{each['path']}: {each['message']}" for each in said.get("problems", [])]
        return "; ".join([str(said["detail"]), *found])
    except (HTTPException, OSError, ValueError, LookupError, TypeError, AttributeError):
        return f"the API answered {error.code}"
