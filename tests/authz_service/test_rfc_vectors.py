"""The examples printed in RFC 7515, RFC 7519 and RFC 7520, read by this service."""

from __future__ import annotations

from base64 import urlsafe_b64decode
from typing import Any

import pytest

from authz_service.compact import read_compact
from authz_service.errors import Reason, TokenInvalid
from authz_service.keys import read_key_set
from authz_service.tokens import InvalidToken, Provider, Verified, Verifier
from service_kit.jwk import ALGORITHMS

EXPIRES = 1300819380
CLAIMS = "eyJpc3MiOiJqb2UiLA0KICJleHAiOjEzMDA4MTkzODAsDQogImh0dHA6Ly9leGFtcGxlLmNvbS9pc19yb290Ijp0cnVlfQ"

A1_KEY = {
    "kty": "oct",
    "k": "AyM1SysPpbyDfgZld3umj1qzKObwVMkoqQ-EstJQLr_T-1qS0gZH75aKtMN3Yj0iPS4hcgUuTwjAzZr1Z9CAow",
}
A1_TOKEN = f"eyJ0eXAiOiJKV1QiLA0KICJhbGciOiJIUzI1NiJ9.{CLAIMS}.dBjftJeZ4CVP-mB92K27uhbUJU1p1r_wW1gFWFOEjXk"

A2_KEY = {
    "kty": "RSA",
    "n": "ofgWCuLjybRlzo0tZWJjNiuSfb4p4fAkd_wWJcyQoTbji9k0l8W26mPddxHmfHQp-Vaw-4qPCJrcS2mJPMEzP1Pt0Bm4d4QlL-yRT-SFd2lZS"
    "-pCgNMsD1W_YpRPEwOWvG6b32690r2jZ47soMZo9wGzjb_7OMg0LOL-bSf63kpaSHSXndS5z5rexMdbBYUsLA9e-KXBdQOS-UTo7WTBEMa2R2CapHg"
    "665xsmtdVMTBQY4uDZlxvb3qCo5ZwKh9kG4LT6_I5IhlJH7aGhyxXFvUK-DWNmoudF8NAco9_h9iaGNj8q2ethFkMLs91kzk2PAcDTW9gb54h4FRWy"
    "uXpoQ",
    "e": "AQAB",
}
A2_TOKEN = (
    f"eyJhbGciOiJSUzI1NiJ9.{CLAIMS}.cC4hiUPoj9Eetdgtv3hF80EGrhuB__dzERat0XF9g2VtQgr9PJbu3XOiZj5RZmh7AAuHIm4Bh-0Qc_lF5YKt"
    "_O8W2Fp5jujGbds9uJdbF9CUAr7t1dnZcAcQjbKBYNX4BAynRFdiuB--f_nZLgrnbyTyWzO75vRK5h6xBArLIARNPvkSjtQBMHlb1L07Qe7K0GarZR"
    "mB_eSN9383LcOLn6_dO--xi12jzDwusC-eOkHWEsqtFZESc6BfI7noOPqvhJ1phCnvWh6IeYI2w9QOYEUipUTI8np6LbgGY9Fs98rqVt5AXLIhWkWy"
    "wlVmtVrBp0igcN_IoypGlUPQGe77Rw"
)

A3_KEY = {
    "kty": "EC",
    "crv": "P-256",
    "x": "f83OJ3D2xF1Bg8vub9tLe1gHMzV76e8Tus9uPHvRVEU",
    "y": "x_FEzRu9m36HLN_tue659LNpXW6pCyStikYjKIWI5a0",
}
A3_TOKEN = (
    f"eyJhbGciOiJFUzI1NiJ9.{CLAIMS}"
    ".DtEhU3ljbEg8L38VWAfUAqOyKAM6-Xx-F4GawxaepmXFCgfTjDxw5djxLa8ISlSApmWQxfKTUJqPP3-Kg6NU1Q"
)

JWT_6_1_UNSECURED = f"eyJhbGciOiJub25lIn0.{CLAIMS}."


def verifier(jwk: dict[str, Any], algorithm: str) -> Verifier:
    keys, ignored = read_key_set({"keys": [jwk]}, frozenset({algorithm}), with_secrets=True)
    assert not ignored
    provider = Provider("rfc", frozenset({algorithm}), keys, issuer="joe", subject_claim="iss")
    return Verifier([provider], frozenset({"free"}))


@pytest.mark.parametrize(
    ("jwk", "algorithm", "token"),
    [(A1_KEY, "HS256", A1_TOKEN), (A2_KEY, "RS256", A2_TOKEN), (A3_KEY, "ES256", A3_TOKEN)],
    ids=["A.1", "A.2", "A.3"],
)
def test_rfc_7515_appendix_a(jwk: dict[str, Any], algorithm: str, token: str) -> None:
    """Good until the second it expires; a flipped bit in any segment makes it invalid."""
    verdict = verifier(jwk, algorithm).verify(token, None, EXPIRES - 1)
    assert isinstance(verdict, Verified)
    assert verdict.claims["http://example.com/is_root"] is True

    expired = verifier(jwk, algorithm).verify(token, None, EXPIRES)
    assert isinstance(expired, InvalidToken)
    assert expired.reason is Reason.EXPIRED

    flipped = token[:-2] + ("A" if token[-2] != "A" else "B") + token[-1]
    assert isinstance(verifier(jwk, algorithm).verify(flipped, None, EXPIRES - 1), InvalidToken)


def test_rfc_7519_section_6_1() -> None:
    """The unsecured token is invalid as soon as it is read, whatever key there is."""
    with pytest.raises(TokenInvalid):
        read_compact(JWT_6_1_UNSECURED)
    for tail in ("", "AA"):
        assert isinstance(verifier(A1_KEY, "HS256").verify(JWT_6_1_UNSECURED + tail, None, EXPIRES - 1), InvalidToken)


# RFC 7520 signs a sentence, which no claims reader takes: its vectors are for the keys.
PAYLOAD = (
    "SXTigJlzIGEgZGFuZ2Vyb3VzIGJ1c2luZXNzLCBGcm9kbywgZ29pbmcgb3V0IHlvdXIgZG9vci4gWW91IHN0ZXAgb250byB0aGUgcm9hZCwgYW5kIG"
    "lmIHlvdSBkb24ndCBrZWVwIHlvdXIgZmVldCwgdGhlcmXigJlzIG5vIGtub3dpbmcgd2hlcmUgeW91IG1pZ2h0IGJlIHN3ZXB0IG9mZiB0by4"
)
HOBBIT = "bilbo.baggins@hobbiton.example"
RSA_KEY = {
    "kty": "RSA",
    "kid": HOBBIT,
    "use": "sig",
    "n": "n4EPtAOCc9AlkeQHPzHStgAbgs7bTZLwUBZdR8_KuKPEHLd4rHVTeT-O-XV2jRojdNhxJWTDvNd7nqQ0VEiZQHz_AJmSCpMaJMRBSFKrKb2wq"
    "VwGU_NsYOYL-QtiWN2lbzcEe6XC0dApr5ydQLrHqkHHig3RBordaZ6Aj-oBHqFEHYpPe7Tpe-OfVfHd1E6cS6M1FZcD1NNLYD5lFHpPI9bTwJlsde3u"
    "hGqC0ZCuEHg8lhzwOHrtIQbS0FVbb9k3-tVTU4fg_3L_vniUFAKwuCLqKnS2BYwdq_mzSnbLY7h_qixoR7jig3__kRhuaxwUkRz5iaiQkqgc5gHdrNP"
    "5zw",
    "e": "AQAB",
}
EC_KEY = {
    "kty": "EC",
    "kid": HOBBIT,
    "use": "sig",
    "crv": "P-521",
    "x": "AHKZLLOsCOzz5cY97ewNUajB957y-C-U88c3v13nmGZx6sYl_oJXu9A5RkTKqjqvjyekWF-7ytDyRXYgCF5cj0Kt",
    "y": "AdymlHvOiLxXkEhayXQnNCvDX4h9htZaCJN34kfmC6pV5OhQHiraVySsUdaQkAgDPrwQrJmbnX9cwlGfP-HqHZR1",
}
SECRET_KEY = {
    "kty": "oct",
    "kid": "018c0ae5-4d9b-471b-bfd6-eef314bc7037",
    "use": "sig",
    "alg": "HS256",
    "k": "hJtXIZ2uSN5kbQfbtTNWbpdmhkV8FJG-Onbc6mxCcYg",
}
RFC_7520 = [
    (
        "RS256",
        RSA_KEY,
        "eyJhbGciOiJSUzI1NiIsImtpZCI6ImJpbGJvLmJhZ2dpbnNAaG9iYml0b24uZXhhbXBsZSJ9",
        "MRjdkly7_-oTPTS3AXP41iQIGKa80A0ZmTuV5MEaHoxnW2e5CZ5NlKtainoFmKZopdHM1O2U4mwzJdQx996ivp83xuglII7PNDi84wnB-BDkoBwA"
        "78185hX-Es4JIwmDLJK3lfWRa-XtL0RnltuYv746iYTh_qHRD68BNt1uSNCrUCTJDt5aAE6x8wW1Kt9eRo4QPocSadnHXFxnt8Is9UzpERV0ePPQd"
        "LuW3IS_de3xyIrDaLGdjluPxUAhb6L2aXic1U12podGU0KLUQSE_oI-ZnmKJ3F4uOZDnd6QZWJushZ41Axf_fcIe8u9ipH84ogoree7vjbU5y18kD"
        "quDg",
    ),
    (
        "PS384",
        RSA_KEY,
        "eyJhbGciOiJQUzM4NCIsImtpZCI6ImJpbGJvLmJhZ2dpbnNAaG9iYml0b24uZXhhbXBsZSJ9",
        "cu22eBqkYDKgIlTpzDXGvaFfz6WGoz7fUDcfT0kkOy42miAh2qyBzk1xEsnk2IpN6-tPid6VrklHkqsGqDqHCdP6O8TTB5dDDItllVo6_1OLPpcb"
        "UrhiUSMxbbXUvdvWXzg-UD8biiReQFlfz28zGWVsdiNAUf8ZnyPEgVFn442ZdNqiVJRmBqrYRXe8P_ijQ7p8Vdz0TTrxUeT3lm8d9shnr2lfJT8Im"
        "UjvAA2Xez2Mlp8cBE5awDzT0qI0n6uiP1aCN_2_jLAeQTlqRHtfa64QQSUmFAAjVKPbByi7xho0uTOcbH510a6GYmJUAfmWjwZ6oD4ifKo8DYM-X7"
        "2Eaw",
    ),
    (
        "ES512",
        EC_KEY,
        "eyJhbGciOiJFUzUxMiIsImtpZCI6ImJpbGJvLmJhZ2dpbnNAaG9iYml0b24uZXhhbXBsZSJ9",
        "AE_R_YZCChjn4791jSQCrdPZCNYqHXCTZH0-JZGYNlaAjP2kqaluUIIUnC9qvbu9Plon7KRTzoNEuT4Va2cmL1eJAQy3mtPBu_u_sDDyYjnAMDxX"
        "Pn7XrT0lw-kvAD890jl8e2puQens_IEKBpHABlsbEPX6sFY8OcGDqoRuBomu9xQ2",
    ),
    (
        "HS256",
        SECRET_KEY,
        "eyJhbGciOiJIUzI1NiIsImtpZCI6IjAxOGMwYWU1LTRkOWItNDcxYi1iZmQ2LWVlZjMxNGJjNzAzNyJ9",
        "s0h6KThzkfBBBkLspW1h84VsJZFTsPPqMDA7g1Md7p0",
    ),
]


@pytest.mark.parametrize(("algorithm", "jwk", "header", "signature"), RFC_7520, ids=["4.1", "4.2", "4.3", "4.4"])
def test_rfc_7520_section_4(algorithm: str, jwk: dict[str, Any], header: str, signature: str) -> None:
    """The cookbook's signatures verify with the cookbook's keys, under their own algorithm alone."""
    keys, ignored = read_key_set({"keys": [jwk]}, ALGORITHMS, with_secrets=True)
    (key,) = keys.find(jwk["kid"], algorithm)
    signed, raw = f"{header}.{PAYLOAD}".encode(), urlsafe_b64decode(signature + "==")

    assert not ignored
    assert key.verify(algorithm, signed, raw)
    assert not key.verify(algorithm, signed, raw[:-1] + bytes([raw[-1] ^ 1]))
    assert not key.verify(algorithm, signed + b"A", raw)
    assert not any(key.verify(other, signed, raw) for other in ALGORITHMS - {algorithm})


def test_rfc_7520_payload_is_no_claims_set() -> None:
    """A true signature over something else than claims is no token."""
    algorithm, _, header, signature = RFC_7520[3]

    verdict = verifier(SECRET_KEY, algorithm).verify(f"{header}.{PAYLOAD}.{signature}", None, EXPIRES)
    assert isinstance(verdict, InvalidToken)
    assert verdict.reason is Reason.MALFORMED
