"""What single values look like, whichever field they stand in."""

from __future__ import annotations

import posixpath
import re
import typing
from typing import Any
from urllib.parse import quote, urlsplit

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import TypeAdapter, ValidationError

from controlplane import protos
from controlplane.config import fields
from controlplane.topology import Address
from controlplane.translate.endpoints import addresses
from controlplane.translate.headers import Header
from tests.support.configs import a_service

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8) | st.just(10**400),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=6,
)


def fits(kind: Any, value: Any) -> bool:
    """Whether a field of this type takes the value."""
    try:
        TypeAdapter(kind).validate_python(value)
    except ValidationError:
        return False
    return True


@pytest.mark.parametrize(
    ("name", "good"),
    [
        ("a", True),
        ("0", True),
        ("a-b--c", True),
        ("a" * 63, True),
        ("", False),
        ("a" * 64, False),
        ("-a", False),
        ("a-", False),
        ("A", False),
        ("a_b", False),
        ("a.b", False),
        ("a/b", False),
        ("é", False),
        ("a\n", False),
        (" a", False),
        (1, False),
    ],
)
def test_names(name: Any, good: bool) -> None:
    """A name is a DNS label in lower case: it becomes a part of metrics, keys and cluster names."""
    assert fits(fields.Name, name) is good


@pytest.mark.parametrize(
    ("seconds", "good"),
    [
        (0.001, True),
        (86_400, True),
        (0, False),
        (-1, False),
        (86_401, False),
        (float("inf"), False),
        (float("nan"), False),
    ],
)
def test_seconds(seconds: float, good: bool) -> None:
    """More than none, at most a day."""
    assert fits(fields.Seconds, seconds) is good


@pytest.mark.parametrize(
    ("name", "good"),
    [
        ("x-a", True),
        ("X_A!#$%&'*+.^`|~", True),
        ("", False),
        ("a b", False),
        ("a:", False),
        (":a", False),
        ("a\r\nb", False),
        ("é", False),
    ],
)
def test_header_names(name: str, good: bool) -> None:
    """A header's name is a token (RFC 9110, section 5.6.2)."""
    assert fits(fields.HeaderName, name) is good


@pytest.mark.parametrize("name", ["x-api-key", "X-Api-Key", "apikey", "x-partner-2", "x-users", "a" * 64])
def test_headers_for_a_credential(name: str) -> None:
    """A name of its own, in whatever case."""
    assert fits(fields.CredentialHeader, name)


@pytest.mark.parametrize("name", ["x_api_key", "", "a" * 65, "x-api-key\n", ":path"])
def test_other_spellings_are_no_headers_for_a_credential(name: str) -> None:
    """An underscore would never be seen by who looks for the header."""
    assert not fits(fields.CredentialHeader, name)


@pytest.mark.parametrize("name", ["authorization", "cookie", "host"])
def test_a_credential_takes_no_other_ones_header(name: str) -> None:
    """What has a meaning of its own is named."""
    with pytest.raises(ValueError, match=f"^{name} has a meaning of its own$"):
        fields.check_credential_header(name)


@pytest.mark.parametrize("name", ["x-user-key", *(name for name in Header if name.startswith(("x-mgw-", "x-user-")))])
def test_a_credential_takes_no_header_that_is_removed(name: str) -> None:
    """Of a client's headers those are gone before anyone looks for a key: every key would be missing."""
    with pytest.raises(ValueError, match="has a meaning of its own"):
        fields.check_credential_header(name)


def test_a_method_is_idempotent_where_the_rfc_says_so() -> None:
    """RFC 9110, section 9.2.2: of the methods that a route can have, all but POST and PATCH."""
    assert set(typing.get_args(fields.Method)) - set(fields.IDEMPOTENT) == {"POST", "PATCH"}
    assert set(fields.IDEMPOTENT) <= set(typing.get_args(fields.Method))


def test_no_algorithm_is_none_and_each_is_strong() -> None:
    """Every name is one of RFC 7518 or RFC 8037 with a digest of 256 bits or more."""
    for name in typing.get_args(fields.Algorithm):
        assert re.fullmatch(r"(HS|RS|PS|ES)(256|384|512)|EdDSA", name)


PARTS = st.lists(st.text(min_size=1, max_size=10).map(lambda part: part.replace(",", "").strip()).filter(bool))


@given(PARTS, st.sampled_from([",", " , ", ",,", ", ,"]))
def test_commas_separate(parts: list[str], comma: str) -> None:
    """Spaces around a part, and parts without anything, mean nothing."""
    assert fields.split_commas(comma.join(parts)) == parts
    assert fields.split_commas(f" {comma}{comma.join(parts)}{comma}") == parts


@pytest.mark.parametrize("value", [["a, b"], None, 5, {"a": "b,c"}])
def test_only_text_is_split(value: Any) -> None:
    """What is a list already stays as it is, and what is neither is for the field to judge."""
    assert fields.split_commas(value) is value


@pytest.mark.parametrize("subject", ["a", "partner:1", "jöb", " ", "a" * 256, "é" * 128, "\xa0"])
def test_subjects(subject: str) -> None:
    """Text of at most 256 bytes of UTF-8."""
    assert fields.check_subject(subject) == subject


@pytest.mark.parametrize("subject", ["a" * 257, "é" * 128 + "a", "a\nb", "\0", "\x1f", "\x7f", "\x80", "\x9f"])
def test_what_is_no_subject(subject: str) -> None:
    """Longer ones, and those with a control character: it stands in a header and in the log."""
    with pytest.raises(ValueError, match="1 to 256 bytes of text without control characters"):
        fields.check_subject(subject)


@given(st.dictionaries(st.text(max_size=5), JSON, max_size=3))
def test_json_is_what_a_policy_can_carry(value: dict[str, Any]) -> None:
    """What is accepted becomes a Struct; a number that is no double is rejected."""
    try:
        accepted = fields.check_json(value)
    except ValueError as error:
        assert "JSON compliant" in str(error)
        return
    assert accepted is value
    protos.struct(value)


@pytest.mark.parametrize("number", [float("nan"), float("inf"), -float("inf"), 10**400, -(10**400)])
def test_numbers_that_no_double_holds(number: float) -> None:
    """However deep they stand."""
    with pytest.raises(ValueError, match="JSON compliant"):
        fields.check_json({"keys": [{"a": [number]}]})


SEGMENTS = st.sampled_from(
    ["", "a", "a b", ".", "..", "{id}", "{rest=**}", "{Id}", "%2e", "a%", "é", "a;b=c", "*", "?"]
)


@given(st.lists(SEGMENTS | st.text(max_size=4), max_size=5).map("/".join))
def test_a_path_that_is_accepted_is_one_that_nobody_changes(path: str) -> None:
    """Without its parameters it is the same before and after normalising, quoting and parsing."""
    try:
        assert fields.check_path_template(path) == path
    except ValueError as error:
        assert str(error)
        return
    plain = re.sub(r"\{[^}]*\}", "x", path)
    assert posixpath.normpath(plain) + "/" * (plain.endswith("/") and plain != "/") == plain
    assert quote(plain, safe="/~!$&'()*+,;=:@") == plain
    assert urlsplit(plain).path == plain


URLS = st.tuples(
    st.sampled_from(["http", "https", "HTTP", "ftp", ""]),
    st.sampled_from(["://", ":", ":/"]),
    st.sampled_from(["", "u@", "u:p@"]),
    st.sampled_from(["a", "A.b", "a_b-c.", "10.0.0.1", "[::1]", "[fe80::1%eth0]", "::1", "[a]", "é", "a b", ""])
    | st.text(max_size=4),
    st.sampled_from(["", ":", ":80", ":080", ":0", ":65536", ":x", ":-1", ": 1", ":²"]),
    st.sampled_from(["", "/", "//", "/a", "?", "?a", "#", "#a", "\n", "/?"]),
).map("".join)


@given(URLS)
def test_an_endpoint_that_is_accepted_is_an_address_and_nothing_else(url: str) -> None:
    """Envoy is told its host and port, a health check's path can follow it, and nothing of it is lost."""
    try:
        assert fields.check_upstream_url(url) == url
    except ValueError as error:
        assert str(error)
        return
    (address,) = addresses(a_service("demo", url))
    assert Address.parse(str(address)) == address
    asked = urlsplit(url.rstrip("/") + "/well")
    assert (asked.path, asked.query, asked.fragment) == ("/well", "", "")
    assert url.lower().rstrip("/").endswith(urlsplit(url).netloc.lower())


@pytest.mark.parametrize("url", ["http://a?", "http://a#", "http://a/?", "http://a:80/#"])
def test_an_empty_query_is_more_than_an_address(url: str) -> None:
    """A path behind it would be the query's."""
    with pytest.raises(ValueError, match="no path, query or user"):
        fields.check_upstream_url(url)


@pytest.mark.parametrize("value", ["${A}", "${_a1}", "${JWT_SECRET}"])
def test_secrets_are_references(value: str) -> None:
    """One variable's name, and nothing around it."""
    assert fields.check_secret_reference(value) == value


@pytest.mark.parametrize("value", ["${A}${B}", "${A:-b}", "$A", "${}", "${1A}", "${A}\n", "${A }", "hush"])
def test_a_secret_that_is_written_is_not_repeated(value: str) -> None:
    """The message says what to write instead, and never what was written."""
    with pytest.raises(ValueError, match="refer to it as") as caught:
        fields.check_secret_reference(value)

    assert value not in str(caught.value)
