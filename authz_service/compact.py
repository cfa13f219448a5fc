"""Reads the JWS compact form strictly, before any library sees it (RFC 7515 §3.1, §5.2; RFC 8725 §2.4, §3)."""

from __future__ import annotations

import json
import re
from base64 import urlsafe_b64decode
from dataclasses import dataclass
from math import isfinite
from typing import Any, NoReturn

from authz_service.errors import Reason, TokenInvalid

MAX_TOKEN_BYTES = 8 * 1024
MAX_DEPTH = 16
MAX_CONTAINERS = 512
MAX_NUMBER_DIGITS = 20
MAX_KID_BYTES = 256

# A header field that we do not understand is ignored (RFC 7515 §4), and so are keys that come with the token (`jwk`,
# `jku`, `x5u`, `x5c`). Only these two change what the signature means (RFC 7515 §4.1.11, RFC 7797 §3): a list of
# extensions that we had to understand, and a payload that is not encoded.
CRITICAL, ENCODED = "crit", "b64"
# A token may say what kind of token it is (RFC 8725 §3.11), and one of another kind, such as a logout token, is none of
# ours. Any other `typ` is ignored.
EXPLICIT_TYPE = "+jwt"
TOKEN_TYPES = frozenset({"at+jwt", "application/at+jwt"})

# Only the alphabet, and no padding (RFC 7515 §2).
_COMPACT = re.compile(r"([A-Za-z0-9_-]+)\.([A-Za-z0-9_-]+)\.([A-Za-z0-9_-]+)")
# The characters that may end a segment, by its length modulo 4. Any other has stray bits: a second spelling of the same
# bytes, and so a second text for the same token (RFC 4648 §3.5).
_LAST = (
    frozenset("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"),
    frozenset[str](),
    frozenset("AQgw"),
    frozenset("AEIMQUYcgkosw048"),
)
_PADDING = ("", "===", "==", "=")


@dataclass(frozen=True, slots=True)
class Compact:
    """A well-formed token. Nothing in it is verified yet."""

    algorithm: str
    kid: str | None
    claims: dict[str, Any]
    signing_input: bytes
    signature: bytes


def read_compact(token: str) -> Compact:
    """The parts of a token in compact form (RFC 7515 §7.1). Raises TokenInvalid.

    Whatever the token holds, this costs at most one pass over MAX_TOKEN_BYTES.
    """
    if len(token) > MAX_TOKEN_BYTES:
        raise TokenInvalid(Reason.TOO_LARGE)
    match = _COMPACT.fullmatch(token)
    if match is None:
        raise TokenInvalid(Reason.MALFORMED)
    header_text, claims_text, signature_text = match.groups()
    algorithm, kid = _read_header(_read_object(header_text))
    return Compact(
        algorithm=algorithm,
        kid=kid,
        claims=_read_object(claims_text),
        signing_input=token[: match.end(2)].encode("ascii"),
        signature=_decode_segment(signature_text),
    )


def _read_header(header: dict[str, Any]) -> tuple[str, str | None]:
    if CRITICAL in header or header.get(ENCODED, True) is not True:
        raise TokenInvalid(Reason.HEADER_REJECTED)
    algorithm = header.get("alg")
    if type(algorithm) is not str:
        raise TokenInvalid(Reason.ALGORITHM)
    if not _is_text(header, "typ", "cty") or _is_of_another_kind(header.get("typ", "")):
        raise TokenInvalid(Reason.HEADER_REJECTED)
    kid = header.get("kid")
    if "kid" in header and (type(kid) is not str or not kid or len(kid) > MAX_KID_BYTES):
        raise TokenInvalid(Reason.HEADER_REJECTED)
    return algorithm, kid


def _is_text(header: dict[str, Any], *names: str) -> bool:
    return all(type(header.get(name, "")) is str for name in names)


def _is_of_another_kind(token_type: str) -> bool:
    lower = token_type.lower()
    return lower.endswith(EXPLICIT_TYPE) and lower not in TOKEN_TYPES


def _decode_segment(segment: str) -> bytes:
    rest = len(segment) % 4
    if segment[-1] not in _LAST[rest]:
        raise TokenInvalid(Reason.MALFORMED)
    return urlsafe_b64decode(segment + _PADDING[rest])


def _read_object(segment: str) -> dict[str, Any]:
    try:
        text = _decode_segment(segment).decode("utf-8")
        opened = text.count("{") + text.count("[")  # the depth is at most this
        if opened > MAX_CONTAINERS:
            raise TokenInvalid(Reason.MALFORMED)
        value = _JSON.decode(text)
    except (ValueError, RecursionError):  # UnicodeDecodeError and JSONDecodeError are ValueErrors
        raise TokenInvalid(Reason.MALFORMED) from None
    if type(value) is not dict or (opened > MAX_DEPTH and _is_deeper_than(value, MAX_DEPTH)):
        raise TokenInvalid(Reason.MALFORMED)
    return value


def _is_deeper_than(root: dict[str, Any], depth: int) -> bool:
    level: list[Any] = [root]
    for _ in range(depth):
        level = [
            child
            for node in level
            for child in (node.values() if type(node) is dict else node)
            if type(child) is dict or type(child) is list
        ]
        if not level:
            return False
    return True


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """Names must be unique (RFC 7515 §4): two readers could each take another one of two equal names."""
    members = dict(pairs)
    if len(members) != len(pairs):
        raise ValueError("a name occurs twice")
    return members


def _bounded_int(text: str) -> int:
    if len(text) > MAX_NUMBER_DIGITS:
        raise ValueError("a number is too long")
    return int(text)


def _bounded_float(text: str) -> float:
    number = float(text) if len(text) <= 2 * MAX_NUMBER_DIGITS else float("inf")
    if not isfinite(number):
        raise ValueError("a number is too long or too large")
    return number


def _reject_constant(text: str) -> NoReturn:
    """NaN and the infinities are Python's, not JSON's. An `exp` of Infinity would never expire."""
    raise ValueError(f"{text} is not JSON")


_JSON = json.JSONDecoder(
    object_pairs_hook=_unique,
    parse_int=_bounded_int,
    parse_float=_bounded_float,
    parse_constant=_reject_constant,
)
