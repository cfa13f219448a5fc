"""The strict reader of the compact form."""

from __future__ import annotations

import json
from typing import Any

import pytest

from authz_service.compact import MAX_CONTAINERS, MAX_DEPTH, MAX_TOKEN_BYTES, Compact, read_compact
from authz_service.errors import Reason, TokenInvalid

HEADER = b'{"alg":"HS256"}'
CLAIMS = b'{"sub":"u1"}'


def reason(token: str) -> Reason:
    with pytest.raises(TokenInvalid) as rejected:
        read_compact(token)
    return rejected.value.reason


def test_a_plain_token_is_taken_apart(segment: Any) -> None:
    """Header fields, claims, signature, and the very bytes that were signed."""
    token = ".".join([segment(b'{"alg":"ES256","kid":"k1","typ":"JWT"}'), segment(CLAIMS), segment(b"sig!")])

    compact = read_compact(token)

    assert (compact.algorithm, compact.kid) == ("ES256", "k1")
    assert compact.claims == {"sub": "u1"}
    assert compact.signing_input.decode() == token.rpartition(".")[0]
    assert compact.signature == b"sig!"


@pytest.mark.parametrize(
    "shape",
    ["", ".", "..", "...", "{h}", "{h}.{c}", "{h}.{c}.", ".{c}.{s}", "{h}..{s}", "{h}.{c}.{s}.", "{h}.{c}.{s}.{s}.{s}"],
)
def test_other_than_three_segments_is_malformed(shape: str, segment: Any) -> None:
    """Neither fewer nor more nor empty ones: no unsigned token, no JWE."""
    assert reason(shape.format(h=segment(HEADER), c=segment(CLAIMS), s=segment(b"sig"))) is Reason.MALFORMED


@pytest.mark.parametrize(
    "character", ["=", "+", "/", " ", "\t", "\n", "\r", "\0", ",", "%", "é", "\u2028", "Ａ", "\ud800"]
)
def test_only_the_alphabet_is_read(character: str, segment: Any) -> None:
    """Anything beside base64url's alphabet, in any segment and at any end, is malformed."""
    parts = [segment(HEADER), segment(CLAIMS), segment(b"signature")]
    for index in range(3):
        for text in (parts[index] + character, character + parts[index]):
            assert reason(".".join([*parts[:index], text, *parts[index + 1 :]])) is Reason.MALFORMED


@pytest.mark.parametrize(
    ("text", "is_canonical"), [("QQ", True), ("QR", False), ("QUE", True), ("QUF", False), ("Q", False)]
)
def test_a_segment_has_one_spelling(text: str, is_canonical: bool, segment: Any) -> None:
    """Stray bits in the last character, and lengths that no bytes have, are malformed (RFC 4648 §3.5)."""
    token = f"{segment(HEADER)}.{segment(CLAIMS)}.{text}"
    if is_canonical:
        assert read_compact(token).signature
    else:
        assert reason(token) is Reason.MALFORMED


def test_a_token_over_8_kib_is_invalid_before_it_is_decoded(segment: Any) -> None:
    """The bound is on the text, to the byte."""
    stem = f"{segment(HEADER)}.{segment(CLAIMS)}."
    room = MAX_TOKEN_BYTES - len(stem)

    assert isinstance(read_compact(stem + "A" * (room - room % 4)), Compact)
    assert reason(stem + "A" * (room + 1)) is Reason.TOO_LARGE
    assert reason("\0" * (MAX_TOKEN_BYTES + 1)) is Reason.TOO_LARGE


@pytest.mark.parametrize(
    "header",
    [
        b"",
        b"null",
        b"[]",
        b'"alg"',
        b"1",
        b"{",
        b'{"alg":"HS256"',
        b'{"alg":"HS256"} x',
        b"{'alg':'HS256'}",
        b'{"alg":"HS256",}',
        b'{"alg":"HS256","alg":"none"}',
        b'{"alg":"HS256","\\u0061lg":"none"}',
        b'\xef\xbb\xbf{"alg":"HS256"}',
        b'{"alg":"HS256","kid":"\xff"}',
        b'{"alg":"HS256","kid":"\x00"}',
        '{"alg":"HS256"}'.encode("utf-16"),
    ],
)
def test_a_header_is_one_utf8_json_object(header: bytes, segment: Any) -> None:
    """With each name once, also where an escape hides the second."""
    assert reason(f"{segment(header)}.{segment(CLAIMS)}.AAAA") is Reason.MALFORMED


@pytest.mark.parametrize(
    "claims",
    [
        b"null",
        b"[]",
        b"u1",
        b'{"sub":"a","sub":"b"}',
        b'{"a":{"b":1,"b":2}}',
        b'{"exp":NaN}',
        b'{"exp":Infinity}',
        b'{"exp":-Infinity}',
        b'{"exp":1e999}',
        b'{"exp":' + b"9" * 21 + b"}",
        b'{"exp":' + b"9" * 5000 + b"}",
        b'{"exp":-' + b"9" * 21 + b"}",
        b'{"exp":0.' + b"1" * 60 + b"}",
        b'{"exp":1e' + b"9" * 60 + b"}",
        b'{"exp":01}',
        b'{"exp":+1}',
        b'{"exp":0x10}',
        b'{"sub":"\xc3"}',
        b'{"sub":"\xed\xa0\x80"}',
        b'{"sub":"\n"}',
        b'{"a":' + b"[" * MAX_DEPTH + b"]" * MAX_DEPTH + b"}",
        b'{"a":' * 1000 + b"1" + b"}" * 1000,
        b"[" * 6000,
        b'{"a":[' + b",".join([b"[]"] * MAX_CONTAINERS) + b"]}",
    ],
)
def test_claims_are_one_bounded_json_object(claims: bytes, segment: Any) -> None:
    """Duplicate names, numbers that JSON lacks or nobody needs, bad UTF-8 and depth are malformed."""
    assert reason(f"{segment(HEADER)}.{segment(claims)}.AAAA") is Reason.MALFORMED


def test_honest_depth_and_numbers_are_read(segment: Any) -> None:
    """The bounds leave room for what issuers send."""
    claims = {
        "exp": 1_800_000_000.25,
        "big": 2**63,
        "braces": "{[" * 200,
        "nested": {"a": [{"b": [{"c": {}}]}]},
        "roles": [{"name": f"role-{n}"} for n in range(100)],
    }

    assert read_compact(f"{segment(HEADER)}.{segment(claims)}.AAAA").claims == claims


def test_the_deepest_allowed_object_is_read(segment: Any) -> None:
    """The bound on depth counts the claims' own object."""
    claims = b'{"a":' + b"[" * (MAX_DEPTH - 1) + b"]" * (MAX_DEPTH - 1) + b"}"

    assert isinstance(read_compact(f"{segment(HEADER)}.{segment(claims)}.AAAA"), Compact)


@pytest.mark.parametrize(
    ("header", "expected"),
    [
        ({"alg": "HS256", "crit": ["exp"]}, Reason.HEADER_REJECTED),
        ({"alg": "HS256", "crit": []}, Reason.HEADER_REJECTED),
        ({"alg": "HS256", "crit": None}, Reason.HEADER_REJECTED),
        ({"alg": "HS256", "crit": ["cat"], "cat": "x"}, Reason.HEADER_REJECTED),
        ({"alg": "HS256", "b64": False, "crit": ["b64"]}, Reason.HEADER_REJECTED),
        ({"alg": "HS256", "b64": False}, Reason.HEADER_REJECTED),
        ({"alg": "HS256", "b64": None}, Reason.HEADER_REJECTED),
        ({"alg": "HS256", "b64": 1}, Reason.HEADER_REJECTED),
        ({"alg": "HS256", "b64": "true"}, Reason.HEADER_REJECTED),
        ({"alg": "HS256", "typ": None}, Reason.HEADER_REJECTED),
        ({"alg": "HS256", "typ": ["JWT"]}, Reason.HEADER_REJECTED),
        ({"alg": "HS256", "typ": "dpop+jwt"}, Reason.HEADER_REJECTED),
        ({"alg": "HS256", "typ": "Logout+JWT"}, Reason.HEADER_REJECTED),
        ({"alg": "HS256", "typ": "application/secevent+jwt"}, Reason.HEADER_REJECTED),
        ({"alg": "HS256", "cty": 5}, Reason.HEADER_REJECTED),
        ({"alg": "HS256", "kid": 1}, Reason.HEADER_REJECTED),
        ({"alg": "HS256", "kid": None}, Reason.HEADER_REJECTED),
        ({"alg": "HS256", "kid": ""}, Reason.HEADER_REJECTED),
        ({"alg": "HS256", "kid": {"a": 1}}, Reason.HEADER_REJECTED),
        ({"alg": "HS256", "kid": "k" * 257}, Reason.HEADER_REJECTED),
        ({}, Reason.ALGORITHM),
        ({"alg": None}, Reason.ALGORITHM),
        ({"alg": 256}, Reason.ALGORITHM),
        ({"alg": ["HS256"]}, Reason.ALGORITHM),
        ({"ALG": "HS256"}, Reason.ALGORITHM),
    ],
)
def test_headers_that_make_a_token_invalid(header: dict[str, Any], expected: Reason, segment: Any) -> None:
    """Critical extensions, a payload that is not encoded, a token of another kind, and a field of a wrong kind."""
    assert reason(f"{segment(json.dumps(header).encode())}.{segment(CLAIMS)}.AAAA") is expected


@pytest.mark.parametrize(
    "header",
    [
        {"alg": "HS256"},
        *(
            {"alg": "HS256", "typ": typ}
            for typ in ("JWT", "jwt", "at+jwt", "AT+JWT", "application/at+jwt", "application/jwt")
        ),
        *({"alg": "HS256", "typ": typ} for typ in ("JOSE", "JOSE+JSON", "Bearer", "", "jwt+x")),
        {"alg": "HS256", "cty": "JWT"},
        {"alg": "HS256", "cty": "json"},
        {"alg": "RS256", "kid": "k1", "x5t": "AAAA", "x5t#S256": "AAAA"},
        {"alg": "HS256", "b64": True},
        {
            "alg": "HS256",
            "cat": "cl_x",
            "nonce": "n",
            "ver": "1",
            "iss": "https://idp",
            "exp": 1,
            "zip": "DEF",
            "enc": "x",
        },
        {
            "alg": "HS256",
            "anything": {"at": [None, 1, {"all": True}]},
            "nothing": None,
            "": "",
            "Crit": [],
            "B64": False,
        },
        {"alg": "HS256", "jku": "https://keys", "x5u": "https://certificate", "jwk": {"kty": "oct"}, "x5c": ["AAAA"]},
    ],
)
def test_what_is_not_understood_is_ignored(header: dict[str, Any], segment: Any) -> None:
    """RFC 7515 §4: fields that are not critical change nothing, whatever they hold. Names are case-sensitive."""
    assert read_compact(f"{segment(header)}.{segment(CLAIMS)}.AAAA").algorithm == header["alg"]
