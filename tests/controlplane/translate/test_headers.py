"""Names that cross between Python, Lua and Envoy are spelt once."""

from __future__ import annotations

import re
from importlib import resources
from importlib.resources.abc import Traversable
from itertools import chain

import pytest

from controlplane.translate import headers
from controlplane.translate.headers import Header, Key, Mark, Namespace, ResponseHeader
from tests.support.configs import default_config
from tests.support.early import is_removed

FOLDER = resources.files("controlplane.translate")
SOURCES = [
    file
    for file in chain(FOLDER.iterdir(), FOLDER.joinpath("lua").iterdir())
    if file.name.endswith((".py", ".lua")) and file.name != "headers.py"
]
OURS = {*Header, *ResponseHeader, *Namespace} - {Header.REQUEST_ID, Header.CORRELATION_ID, ResponseHeader.STATE}


@pytest.mark.parametrize("file", SOURCES, ids=lambda file: file.name)
def test_nobody_else_spells_a_name(file: Traversable) -> None:
    """No header, no value of one and no namespace of metadata is written in another module or in a script."""
    text = file.read_text(encoding="utf-8")
    literals = set(re.findall(r"""["']([^"'\n]+)["']""", text))

    assert "x-mgw-" not in text
    assert not literals & (OURS - {Namespace.GATEWAY})
    assert not literals & {Mark.KNOWN, Mark.UNVERIFIED}


@pytest.mark.parametrize("name", Header)
def test_no_client_can_send_them(name: Header) -> None:
    """Every name is reserved, but for the two ids, which a client may choose and the request filter checks, and for
    X-Forwarded-For, to which the client's address is appended."""
    assert is_removed(default_config(), name) is (
        name not in (Header.REQUEST_ID, Header.CORRELATION_ID, Header.FORWARDED_FOR)
    )


@pytest.mark.parametrize("name", [name for name in Header if name.startswith("x-mgw-")])
def test_no_upstream_sees_an_internal_header(name: Header) -> None:
    """The router removes it, or it is gone by then, or the request is."""
    is_gone = name in (Header.CLIENT_REQUEST_ID, Header.FORWARDED_FOR_KEPT)
    is_rejected = name in (Header.BAD_REQUEST, Header.UNFIT, Header.REJECTED, Header.OVER_LIMIT)

    assert (name in headers.REMOVED_BEFORE_UPSTREAM) is not (is_gone or is_rejected)


def test_internal_names_are_far_apart() -> None:
    """No two of them differ by a letter or two at the end, so that nobody takes one for the other."""
    names = [name for name in Header if name.startswith("x-mgw-")]

    assert not [(one, other) for one in names for other in names if one != other and other.startswith(one)]


def test_the_scripts_get_every_name() -> None:
    """Under the member's name, in a table for each kind."""
    tables = headers.for_lua()

    assert tables["header"]["IDENTITY"] == Header.IDENTITY
    assert {name for table in tables.values() for name in table.values()} >= {*Header, *ResponseHeader, *Key, *Mark}
