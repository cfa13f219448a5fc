"""Fetches a key set over HTTP, with every bound that a source which has gone wrong could break."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

from service_kit.http_failure import why

MAX_BYTES = 1 << 20
TIMEOUT_SECONDS = 5.0
MAX_VALIDATOR = 1024
"""Characters of an ETag or a date that are worth keeping."""
# Uncompressed, so that the bound on what we read is the bound on what we hold.
HEADERS = {"accept": "application/jwk-set+json, application/json", "accept-encoding": "identity"}


class FetchFailed(Exception):
    """The source did not return a key set. The message says why, and names no more of its URL than host and port."""


@dataclass(frozen=True, slots=True)
class Copy:
    """A key set as its source sent it, and what the source calls this version of it (RFC 9110, section 8.8)."""

    body: bytes
    etag: str | None = None
    last_modified: str | None = None


async def fetch_key_set(
    uri: str,
    known: Copy | None = None,
    *,
    ca_file: str | None = None,
    timeout_seconds: float = TIMEOUT_SECONDS,
    max_bytes: int = MAX_BYTES,
) -> Copy:
    """What is published at `uri`; `known` itself if the source says that it is still that. Raises FetchFailed.

    Redirects are not followed: the operator names the source, and a redirect could name another one. With `ca_file`
    the authorities in it are trusted, and no others.
    """
    import httpx2  # late: only a configuration with a jwks_uri pays for it

    verify = await asyncio.to_thread(_trust, ca_file) if ca_file is not None else True
    headers = HEADERS | _conditions(known)
    try:
        # One connection for each fetch: fetches are far apart, and the source would have closed an idle one.
        async with (
            asyncio.timeout(timeout_seconds),
            httpx2.AsyncClient(timeout=None, follow_redirects=False, trust_env=False, verify=verify) as client,
            client.stream("GET", uri, headers=headers) as response,
        ):
            if known is not None and response.status_code == 304 and len(headers) > len(HEADERS):
                return known
            _check(response.status_code, response.headers)
            return _copy(await _read_bounded(response.aiter_raw(), max_bytes), response.headers)
    except TimeoutError as error:
        raise FetchFailed(f"{_origin(uri)}: time-out after {timeout_seconds:g} s") from error
    except _Unfit as error:
        raise FetchFailed(f"{_origin(uri)}: {error}") from error
    # Beside its own errors the client raises those of a URL that nobody can connect to.
    except (httpx2.HTTPError, httpx2.InvalidURL, OSError, ValueError, OverflowError, ExceptionGroup) as error:
        raise FetchFailed(f"{_origin(uri)}: {why(error)}") from error


class _Unfit(Exception):
    """An answer that holds no key set. The message says why."""


def _trust(ca_file: str) -> ssl.SSLContext:
    """Read for each fetch, so that a changed file needs no restart."""
    try:
        return ssl.create_default_context(cafile=ca_file)
    except ssl.SSLError as error:
        raise FetchFailed(f"ca_file {ca_file} holds no certificate that can be read") from error
    except OSError as error:
        raise FetchFailed(f"ca_file {ca_file}: {error.strerror or type(error).__name__}") from error


def _conditions(known: Copy | None) -> dict[str, str]:
    """Headers that ask for an answer only if it is not what is known (RFC 9110, section 13.1)."""
    if known is None:
        return {}
    if known.etag is not None:
        return {"if-none-match": known.etag}
    return {"if-modified-since": known.last_modified} if known.last_modified is not None else {}


def _check(status: int, headers: Mapping[str, Any]) -> None:
    """Raises _Unfit for an answer without a key set."""
    if 300 <= status < 400 and status != 304:
        raise _Unfit(f"status {status}, a redirect, and redirects are not followed")
    if status != 200:
        raise _Unfit(f"status {status}")
    encoding = headers.get("content-encoding", "identity")
    if encoding.lower() != "identity":
        raise _Unfit("the answer is compressed, which was not asked for")


def _copy(body: bytes, headers: Mapping[str, Any]) -> Copy:
    return Copy(body, _validator(headers.get("etag")), _validator(headers.get("last-modified")))


def _validator(value: str | None) -> str | None:
    """What can be sent back as it came."""
    fits = value is not None and 0 < len(value) <= MAX_VALIDATOR and value.isascii() and value.isprintable()
    return value if fits else None


async def _read_bounded(chunks: AsyncIterator[bytes], max_bytes: int) -> bytes:
    body = bytearray()
    async for chunk in chunks:
        body += chunk
        if len(body) > max_bytes:
            raise _Unfit(f"the key set is larger than {max_bytes} bytes")
    return bytes(body)


def _origin(url: str) -> str:
    """What may be logged of a URL: no user, password, path or query."""
    try:
        parts = urlsplit(url)
        host = f"[{parts.hostname}]" if ":" in (parts.hostname or "") else parts.hostname
        return f"{parts.scheme}://{host}" + (f":{parts.port}" if parts.port is not None else "")
    except ValueError:
        return "the URL"
