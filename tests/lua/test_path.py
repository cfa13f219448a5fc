"""path.lua: one spelling for each path, and nothing hidden in it."""

from __future__ import annotations

import re
from urllib.parse import unquote_to_bytes

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from tests.lua.support.worker import Worker
from tests.support.paths import NORMALISED, REJECTED, UNCHANGED

PATH = Worker("path")
HARMLESS = re.compile(rb"(?!\.\.?(;|\Z))[^/\\\0]*")


def clean(path: str) -> str | None:
    """What the request filter does with a path."""
    return path if PATH.is_plain(path) else PATH.normalised(path)


def without_query(path: str) -> str:
    return path.partition("?")[0]


@pytest.mark.parametrize("path", UNCHANGED)
def test_a_plain_path_stays_as_it_is(path: str) -> None:
    """What needs no normalisation is not rewritten."""
    assert clean(without_query(path)) == without_query(path)


@pytest.mark.parametrize(("path", "result"), NORMALISED)
def test_a_path_is_normalised(path: str, result: str) -> None:
    """Dot segments and empty segments go, and unreserved characters are decoded."""
    assert clean(without_query(path)) == without_query(result)


@pytest.mark.parametrize("path", REJECTED)
def test_what_hides_something_is_rejected(path: str) -> None:
    """Encoded slashes, backslashes, NUL and dot segments have no normal form, however often they are encoded."""
    assert clean(without_query(path)) is None


ENCODED = ("%2e", "%2E", "%252e", "%2f", "%25", "%32", "%5c", "%00", "%", "%4", "%41", "%7e", "%C3%A9")
PLAIN = ("/", "//", ".", "..", ";", "..;", "a", "B", "~", "\\", "\xe9", " ", "2", "e", "5c", "2f", "00")
TEXTS = st.lists(st.sampled_from(ENCODED + PLAIN), max_size=12).map("".join) | st.text(
    st.characters(min_codepoint=1, max_codepoint=255), max_size=20
)
PATHS = TEXTS.map(lambda text: f"/{text}")
"""Envoy itself rejects a plain NUL."""


@given(PATHS)
@example("/%2525%32%65")
def test_a_normal_form_is_normal(path: str) -> None:
    """What was normalised is not changed again, so a second gateway sees the same path."""
    once = clean(path)

    assert once is None or clean(once) == once


@given(PATHS)
def test_nothing_is_hidden_in_a_normal_form(path: str) -> None:
    """However often an upstream decodes a segment, it is no dot segment, and holds no slash, backslash or NUL."""
    once = clean(path)

    if once is None:
        return
    assert once.startswith("/")
    assert "//" not in once
    for segment in once.encode("latin-1").split(b"/"):
        decoded = segment
        for _ in range(4):
            assert HARMLESS.fullmatch(decoded)
            decoded = unquote_to_bytes(decoded)


def normal_form(path: str) -> str | None:
    """The rules of a path without doubly encoded characters (RFC 3986, sections 5.2.4 and 6.2.2)."""
    if re.search(r"[^\x21-\x7e]|\\|%(2f|5c|00|c[01]%[89ab]|e0%[89]|f[08c]%8)", path, re.IGNORECASE):
        return None
    if re.search(r"%(?![0-9a-f]{2})", path, re.IGNORECASE):
        return None
    kept: list[str] = []
    segments = [segment for segment in path.split("/") if segment]
    for segment in segments:
        plain = re.sub(r"%(2[de]|3\d|[46][1-9a-f]|[57][0-9a]|5f|7e)", unquoted, segment, flags=re.IGNORECASE)
        if re.match(r"\.\.?(;|%[01]|%2[03]|%3[bf])", plain.lower()) or (plain in (".", "..") and "%" in segment):
            return None
        if plain == "..":
            kept = kept[:-1]
        elif plain != ".":
            kept.append(plain)
    is_directory = path.endswith("/") or (segments and segments[-1] in (".", ".."))
    return "/" + "/".join(kept) + ("/" if kept and is_directory else "")


def unquoted(match: re.Match[str]) -> str:
    return chr(int(match[1], 16))


@given(PATHS.filter(lambda path: "%25" not in path))
def test_the_normal_form_is_that_of_rfc_3986(path: str) -> None:
    """The script agrees with a second reading of the rules, for every path without a doubly encoded character."""
    assert clean(path) == normal_form(path)
