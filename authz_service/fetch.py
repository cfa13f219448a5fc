"""Fetches a key set over HTTP, with every bound that a source which has gone wrong could break."""

from collections.abc import AsyncIterator, Awaitable, Callable
from typing import TYPE_CHECKING
from urllib.parse import urljoin, urlsplit

from authz_service.errors import AuthzError

if TYPE_CHECKING:
    from httpx2 import AsyncClient

MAX_REDIRECTS = 3
MAX_BYTES = 1024 * 1024
# Uncompressed, so that the bound on what we read is the bound on what we hold.
HEADERS = {"accept": "application/jwk-set+json, application/json", "accept-encoding": "identity"}

Fetch = Callable[[], Awaitable[bytes]]


class FetchFailed(AuthzError):
    """The source did not answer with a key set."""


def http_fetch(uri: str, timeout_seconds: float = 5.0, max_bytes: int = MAX_BYTES) -> Fetch:
    """A fetch that bounds time, size and redirects, and never leaves the scheme that the operator wrote."""

    async def fetch() -> bytes:
        import httpx2  # late: only a policy with a jwks_uri pays for it

        try:
            # A connection a fetch: they are minutes apart, and a kept one would be found dead.
            async with httpx2.AsyncClient(timeout=timeout_seconds, follow_redirects=False) as client:
                return await _get(client, uri, max_bytes)
        except (httpx2.HTTPError, httpx2.InvalidURL) as error:
            raise FetchFailed(f"{type(error).__name__} at {_origin(uri)}") from error

    return fetch


async def _get(client: "AsyncClient", url: str, max_bytes: int) -> bytes:
    for _ in range(MAX_REDIRECTS + 1):
        async with client.stream("GET", url, headers=HEADERS) as answer:
            if answer.is_redirect:
                url = _follow(url, answer.headers.get("location", ""))
                continue
            if answer.status_code != 200:
                raise FetchFailed(f"status {answer.status_code} from {_origin(url)}")
            return await _read_bounded(answer.aiter_raw(), max_bytes)
    raise FetchFailed("too many redirects")


def _follow(url: str, location: str) -> str:
    target = urljoin(url, location)
    if urlsplit(target).scheme != urlsplit(url).scheme:
        raise FetchFailed(f"{_origin(url)} redirects to another scheme")
    return target


async def _read_bounded(chunks: AsyncIterator[bytes], max_bytes: int) -> bytes:
    body = bytearray()
    async for chunk in chunks:
        body += chunk
        if len(body) > max_bytes:
            raise FetchFailed(f"the key set is larger than {max_bytes} bytes")
    return bytes(body)


def _origin(url: str) -> str:
    """What may be logged of a URL: no user, password, path or query."""
    parts = urlsplit(url)
    return f"{parts.scheme}://{parts.hostname}"
