"""mask.lua: no credential in the log, however it is written."""

from __future__ import annotations

import base64
import re
import time
from collections.abc import Callable
from urllib.parse import quote

import pytest
from hypothesis import given
from hypothesis import strategies as st

from controlplane.translate import masking
from tests.lua.support.worker import Worker
from tests.support.configs import a_config, values

CONFIG = a_config(
    auth=values()["auth"] | {"api_key_header": "x-partner-key"}, log={"mask_parameters": ["customer_number", "iban"]}
)
MASK = Worker("mask", masking.constants(CONFIG))
HEADER, PAYLOAD, SIGNATURE = "eyJhbGciOiJIUzI1NiJ9", "eyJzdWIiOiJ1In0", "c2lnbmF0dXJl"
JWT = f"{HEADER}.{PAYLOAD}.{SIGNATURE}"
JWE = f"{HEADER}.a2V5.aXY.Y2lwaGVydGV4dA.{SIGNATURE}"


def percent(text: str) -> str:
    """Every character as a code."""
    return "".join(f"%{ord(character):02x}" for character in text)


@pytest.mark.parametrize(
    ("query", "logged"),
    [
        ("a=1&b=2", "a=1&b=2"),
        ("q=the%20matrix%26more&page=2", "q=the%20matrix%26more&page=2"),
        ("&&a&&b=&token=&code", "&&a&&b=&token=&code"),
        ("100%&%zz&%", "100%&%zz&%"),
        ("token=abc&b=2", "token=***&b=2"),
        ("a=1&Access_TOKEN_2=abc", "a=1&Access_TOKEN_2=***"),
        ("access_%74oken=abc", "access_token=***"),
        ("access%255Ftoken=abc", "access_token=***"),
        ("%u0061ccess_token=abc", "access_token=***"),
        ("a=1;access_token=abc;b=2", "a=1;access_token=***"),
        ("a=1%26access_token%3Dabc", "a=1%26access_token=***"),
        ("password=a=b;c/d?e", "password=***"),
        ("token=a&token=b", "token=***&token=***"),
        ("user%5Bpassword%5D=abc&x=1", "user[password]=***&x=1"),
        ("oauth.code=abc", "oauth.code=***"),
        ("to=https%3A%2F%2Fapp%2Fcb%3Fcode%3Dabc%26x%3D1", "to=https://app/cb?code=***"),
        ("to=https://app/cb#id_token=abc", "to=https://app/cb#id_token=***"),
        ("to=https%3A%2F%2Fbob:pw@host%2Fx", "to=https://***@host/x"),
        ("to=https://host/@bob", "to=https://host/@bob"),
        (quote('d={"a":1,"client_secret":"abc"}'), 'd={"a":1,"client_secret":***'),
        (quote("d={'token' : 'abc', 'q': 'code=x'}"), "d={'token'%20:***"),
        ("h=Bearer%20abcdefghijklmnopqrstuvwx", "h=Bearer%20***"),
        ("q=bearer+bonds", "q=bearer+bonds"),
        ("q=bearer of bearer abcdefghijklmnopqrstuvwx", "q=bearer%20of%20bearer%20***"),
        ("IBAN=DE12&customer-number=7&customer=8", "IBAN=***&customer-number=***&customer=8"),
        ("X_Partner_Key=abc", "X_Partner_Key=***"),
        ("q=viewport.min.js&v=1.2.3", "q=viewport.min.js&v=1.2.3"),
        ("q=\xe9&b=%C3%A9", "q=%E9&b=%C3%A9"),
        ("a=%2525252525252525", "***"),
    ],
)
def test_a_query(query: str, logged: str) -> None:
    """Values of parameters with a secret's name are masked; what has no secret stays as it was sent."""
    assert MASK.query(query) == logged


USUAL = """
    access_token refresh_token id_token token auth_token X-Amz-Security-Token id_token_hint csrfmiddlewaretoken
    api_key apikey apiKey api-key X-API-Key hapikey key app_key subscription-key Ocp-Apim-Subscription-Key
    AWSAccessKeyId access_key private_key password passwd pwd pass passphrase user_password
    secret client_secret clientSecret code auth_code authorization_code code_verifier device_code oauth_verifier
    X-Amz-Signature X-Amz-Credential X-Goog-Signature Signature sig oauth_signature hmac
    SAMLResponse SAMLRequest SAMLart client_assertion assertion wresult ticket
    authorization Authorization auth jwt session session_id JSESSIONID PHPSESSID connect.sid cookie otp pin
"""
USUAL_OTHERS = "q page country_code zipcode sort_key keyword author signal client_id state"


@pytest.mark.parametrize("name", USUAL.split())
def test_usual_names_of_credentials(name: str) -> None:
    """In any spelling, plain or encoded."""
    assert MASK.query(f"a=1&{name}=s3cr3t&b=2") == f"a=1&{name}=***&b=2"
    assert MASK.query(f"{percent(name)}=s3cr3t") == f"{name}=***"
    assert MASK.query(f"{percent(percent(name))}%3Ds3cr3t") == f"{name}=***"


@pytest.mark.parametrize("name", USUAL_OTHERS.split())
def test_other_names(name: str) -> None:
    """A word that only resembles one of them is none."""
    assert MASK.query(f"{name}=value") == f"{name}=value"


def with_header(text: str) -> str:
    """A token whose header is this JSON text."""
    header = base64.urlsafe_b64encode(text.encode()).decode().rstrip("=")
    return f"{header}.{PAYLOAD}.{SIGNATURE}"


TOKENS = [
    JWT,
    JWE,
    f"{HEADER}..aXY.Y2lwaGVydGV4dA.{SIGNATURE}",
    f"{HEADER}.{PAYLOAD}.",
    with_header('{ "alg": "HS256" }'),
    with_header('{\n "alg": "HS256"\n}'),
    with_header('{\r\n "alg": "HS256"}'),
    with_header('{\t"alg": "HS256"}'),
    base64.b64encode(JWT.encode()).decode(),
]
SPELLINGS = [
    str,
    percent,
    lambda token: percent(percent(token)),
    lambda token: token.replace(".", "%2e"),
    lambda token: token.replace(".", "%252E"),
    lambda token: token.replace("e", "%65", 1),
]


@pytest.mark.parametrize("spell", SPELLINGS)
@pytest.mark.parametrize("token", TOKENS)
def test_a_token_by_its_look(token: str, spell: Callable[[str], str]) -> None:
    """Signed or encrypted, under any name, in a query or in a path."""
    assert MASK.query(f"a=1&x={spell(token)}&b=2") == "a=1&x=***&b=2"
    assert MASK.path(f"/a/{spell(token)}/b") == "/a/***/b"


@pytest.mark.parametrize(
    ("path", "logged"),
    [
        ("/", "/"),
        ("/a//b/", "/a//b/"),
        ("/a;v=1/caf%C3%A9", "/a;v=1/caf%C3%A9"),
        ("/static/viewport.min.js", "/static/viewport.min.js"),
        ("/a;access_token=abc/b", "/a;access_token=***/b"),
        ("/a;jsessionid=abc;x=1/b", "/a;jsessionid=***/b"),
        ("/a%3Ftoken%3Dabc", "/a%3Ftoken=***"),
        ("/a%2fcode=abc", "/a%2Fcode=***"),
        ("/Bearer+abcdefghijklmnopqrstuvwx", "/Bearer+***"),
        ("/'token':abc", "/'token':***"),
        ("/eyJa.b", "/***"),
    ],
)
def test_a_path(path: str, logged: str) -> None:
    """Part by part, so that what has no secret can still be read."""
    assert MASK.path(path) == logged


PARTS = st.lists(
    st.sampled_from(["%", "%25", "=", "&", ";", "/", "?", "#", '"', "'", ":", "eyJ", ".", "code", "bearer ", "a", "+"])
    | st.text(st.characters(max_codepoint=255), max_size=3),
    max_size=20,
).map("".join)


@given(PARTS, PARTS)
def test_a_token_is_masked_wherever_it_is(before: str, after: str) -> None:
    """Whatever is around it, its signature is not in the log."""
    assert SIGNATURE not in MASK.query(f"{before}&{JWT}&{after}")
    assert SIGNATURE not in MASK.path(f"/{before}/{JWT}/{after}")


NAMED = st.lists(
    st.sampled_from(["q=", "page=1", "code=x", "&", ";", "a", "://a:b@", "=", "Bearer ", "+", JWT, "/"]), max_size=9
)


@given(NAMED.map("".join))
def test_a_short_look_finds_what_a_long_one_does(text: str) -> None:
    """A percent sign anywhere makes the module look at every part of a query; without one, it may not need to."""
    for _ in range(2):  # the second time, it knows the names
        assert f"{MASK.query(text)}&%" == MASK.query(f"{text}&%")


@given(PARTS)
def test_what_is_logged_is_plain_text(text: str) -> None:
    """Bytes that no URL has are encoded."""
    for logged in (MASK.query(text), MASK.printable(text)):
        assert re.fullmatch("[!-~]*", logged)


@given(PARTS)
def test_the_access_log_knows_which_paths_the_script_may_mask(text: str) -> None:
    """It reads a masked path only of these, so none may be missing."""
    path = f"/{text}"
    if MASK.path(path) != path:
        assert re.fullmatch(masking.SUSPICIOUS_PATH, path, re.DOTALL)


def test_names_are_told_as_they_are_compared() -> None:
    """A word that is not would never be found."""
    assert all(masking.bare(word) == word for word in (*masking.SECRET_WORDS, *masking.SECRET_NAMES))


def test_more_names_than_are_kept() -> None:
    """What is remembered of names is bounded, and dropping it changes nothing."""
    query = "&".join(f"n{number}=x" for number in range(2500))

    assert MASK.query(f"{query}&token=abc") == f"{query}&token=***"


@pytest.mark.parametrize(
    "piece", ["eyJ", ".eyJ", '"', "a=", "bearer ", "://:", "ewk", "%25", "a&", "[a", "code[", "'\":", '"" ', "%2525"]
)
def test_no_text_takes_long(piece: str) -> None:
    """A worker serves nobody else meanwhile. Fifty times what Envoy lets through would take minutes, if the time grew
    faster than the text."""
    text = piece * (3_000_000 // len(piece))
    began = time.perf_counter()

    MASK.query(text)

    assert time.perf_counter() - began < 10
