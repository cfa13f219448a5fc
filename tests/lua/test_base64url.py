"""base64url.lua: exactly the texts that an encoder makes."""

from __future__ import annotations

from base64 import urlsafe_b64encode

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.lua.support.worker import Worker

BASE64URL = Worker("base64url")


def encoded(data: bytes) -> str:
    return urlsafe_b64encode(data).rstrip(b"=").decode()


@given(st.binary(max_size=64))
def test_round_trip(data: bytes) -> None:
    """What an encoder makes is canonical and decodes to its bytes."""
    text = encoded(data)

    assert BASE64URL.is_canonical(text)
    assert BASE64URL.decoded(text).encode("latin-1") == data


@given(st.text("ABCDQRfghwxyz0189-_", min_size=1, max_size=9))
def test_no_two_texts_decode_to_the_same(text: str) -> None:
    """A text is canonical only if encoding its bytes gives it back."""
    if BASE64URL.is_canonical(text):
        assert encoded(BASE64URL.decoded(text).encode("latin-1")) == text


@pytest.mark.parametrize("text", ["A", "AAAAA", "AB", "AAB", "Ab-_x"])
def test_not_canonical(text: str) -> None:
    """An impossible length, or unused bits that are not zero (RFC 4648, section 3.5)."""
    assert not BASE64URL.is_canonical(text)
