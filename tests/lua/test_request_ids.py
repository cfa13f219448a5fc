"""request_ids.lua: a client's ids are kept if they are valid."""

from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.lua.support.envoy import Headers
from tests.lua.support.worker import Worker

IDS = Worker("request_ids")
VALID = re.compile(r"[A-Za-z0-9._-]{1,128}")


def accepted(**headers: str) -> dict[str, str]:
    found = Headers({f"x-{name.replace('_', '-')}": value for name, value in headers.items()})
    IDS.accept(found)
    return found.values


@given(st.text(st.characters(max_codepoint=255), max_size=140) | st.from_regex(VALID, fullmatch=True))
def test_only_a_valid_id_is_kept(given_id: str) -> None:
    """Any other request id gives way to Envoy's, any other correlation id to the request's."""
    found = accepted(request_id="envoys", mgw_client_request_id=given_id, correlation_id=given_id)

    is_valid = VALID.fullmatch(given_id) is not None
    assert found == {"x-request-id": given_id, "x-correlation-id": given_id} if is_valid else {"x-request-id": "envoys"}


@pytest.mark.parametrize("length", [128, 129])
def test_the_longest_id(length: int) -> None:
    """128 characters are allowed."""
    assert accepted(correlation_id="a" * length) == ({"x-correlation-id": "a" * 128} if length == 128 else {})


def test_no_ids_of_the_client() -> None:
    """Envoy's stay."""
    assert accepted(request_id="envoys") == {"x-request-id": "envoys"}
