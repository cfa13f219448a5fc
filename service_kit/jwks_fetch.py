"""Fetches a key set over HTTP, with every bound that a source which has gone wrong could break."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from urllib.parse import urlsplit

MAX_BYTES = 1 << 20
TIMEOUT_SECONDS = 5.0
# Uncompressed, so that the bound on what we read is the bound on what we hold.
HEADERS = {"accept": "application/jwk-set+json, application/json", "accept-encoding": "identity"}


class FetchFailed(Exception):
    """The source did not return a key set; the message names no more of its URL than the host."""


async def fetch_key_set(uri: str, timeout_seconds: float = TIMEOUT_SECONDS, max_bytes: int = MAX_BYTES) -> bytes:
    """The body at `uri`. Raises FetchFailed.

    Redirects are not followed: the operator names the source, and a redirect could name another one.
    """
    import httpx2  # late: only a configuration with a jwks_uri pays for it

    try:
        # One connection for each fetch: fetches are minutes apart, and the source would have closed an idle one.
        async with (
            asyncio.timeout(timeout_seconds),
            httpx2.AsyncClient(timeout=timeout_seconds, follow_redirects=False, trust_env=False) as client,
            client.stream("GET", uri, headers=HEADERS) as response,
        ):
            if response.is_redirect:
                raise FetchFailed(f"{_origin(uri)} redirects, which is not followed")
            if response.status_code != 200:
                raise FetchFailed(f"status {response.status_code} from {_origin(uri)}")
            return await _read_bounded(response.aiter_raw(), max_bytes)
    except TimeoutError as error:
        raise FetchFailed(f"Timeout at {_origin(uri)} after {timeout_seconds:g} s") from error
    except (httpx2.HTTPError, httpx2.InvalidURL) as error:
        raise FetchFailed(f"{type(error).__name__} at {_origin(uri)}") from error


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
