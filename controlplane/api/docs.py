"""The API's page at /docs: everything on it is shipped with the gateway, so it works offline.

An admin types a token into this page. A script from elsewhere could read it, so the page loads none, and the browser is
told to refuse any (Content-Security-Policy).
"""

from __future__ import annotations

from importlib import resources

from fastapi import APIRouter, Response
from fastapi.responses import HTMLResponse

from controlplane.api.errors import ApiError

router = APIRouter(include_in_schema=False)

POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self' 'unsafe-inline'; img-src 'self' data:; "
    "connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
HEADERS = {"content-security-policy": POLICY, "x-content-type-options": "nosniff", "referrer-policy": "no-referrer"}
FILES = {
    "swagger-ui-bundle.js": "text/javascript",
    "swagger-ui.css": "text/css",
    "docs.js": "text/javascript",
}
PAGE = """<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>Media Gateway control plane</title>
<link rel="stylesheet" href="docs/swagger-ui.css">
<link rel="icon" href="data:,">
</head>
<body>
<div id="api"></div>
<script src="docs/swagger-ui-bundle.js"></script>
<script src="docs/docs.js"></script>
</body>
</html>
"""


@router.get("/docs")
async def page() -> Response:
    """The page itself."""
    return HTMLResponse(PAGE, headers=HEADERS)


@router.get("/docs/{name}")
async def file(name: str) -> Response:
    """One of its files."""
    if name not in FILES:
        raise ApiError(404, f"the page has no file {name!r}")
    content = resources.files("controlplane.api").joinpath("static", name).read_bytes()
    return Response(content, media_type=FILES[name], headers=HEADERS | {"cache-control": "max-age=3600"})
