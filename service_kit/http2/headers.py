"""Header blocks: what a request's say (RFC 9113, section 8; RFC 7541), and the few that responses are made of."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from itertools import islice
from typing import Any, NamedTuple

from service_kit.http2.frames import COMPRESSION_ERROR, ENHANCE_YOUR_CALM, ConnectionFailure

MAX_LIST_BYTES = 1 << 14
"""Of the fields of one block, decoded (section 6.5.2: names, values, and 32 for each)."""
MAX_TABLE_UPDATES = 2
"""At the beginning of a block (RFC 7541, section 4.2)."""
MAX_LENGTH_DIGITS = 18
MAX_KNOWN_BLOCKS = 1_024
MAX_KNOWN_BYTES = 2_048

_CONNECTION_SPECIFIC = (b"connection", b"keep-alive", b"proxy-connection", b"transfer-encoding", b"upgrade")


class Request(NamedTuple):
    """What a header block says that matters here."""

    path: str
    content_length: int | None = None
    problem: str = ""
    """Why it is malformed (section 8.1.1); empty for a good one."""
    has_pseudo: bool = True
    """Whether there are fields that trailers cannot have."""


class BlockReader:
    """Reads the header blocks of one connection.

    Ours is a dynamic table of size 0, so once the peer took that in, equal blocks have equal fields: `known` keeps what
    they mean, for all connections together.
    """

    def __init__(self, known: dict[bytes, Request]) -> None:
        self._known = known
        self._decoder: Any = None
        self._is_stateless = False
        self._largest_table = 4_096
        """What the peer's encoder may set its table to (RFC 7541, section 4.2): ours, once it knows it."""

    def settings_acknowledged(self) -> None:
        """The peer has seen that our table has no room."""
        self._largest_table = 0

    def known(self, block: bytes) -> Request | None:
        """What a block says, if that was read before."""
        return self._known.get(block) if self._is_stateless else None

    def read(self, block: bytes) -> Request:
        """What a block says, which costs time: `known` is asked first.

        Raises ConnectionFailure where it cannot be decoded: the table's state is lost then.
        """
        request = read_fields(self._decode(block))
        self._is_stateless = self._decoder.header_table_size == 0
        is_size_update = b"\x20" <= block[:1] < b"\x40"  # which is for this moment only
        if self._is_stateless and not is_size_update and len(block) <= MAX_KNOWN_BYTES and not request.problem:
            if len(self._known) >= MAX_KNOWN_BLOCKS:
                self._known.clear()
            self._known[block] = request
        return request

    def _decode(self, block: bytes) -> Iterable[tuple[bytes, bytes]]:
        from hpack import Decoder  # late: no client, no decoder
        from hpack.exceptions import OversizedHeaderListError

        if self._decoder is None:
            self._decoder = Decoder(max_header_list_size=MAX_LIST_BYTES)
        self._check_table(block)
        try:
            fields: Iterable[tuple[bytes, bytes]] = self._decoder.decode(block, raw=True)
        except OversizedHeaderListError as error:
            raise ConnectionFailure(ENHANCE_YOUR_CALM, f"fields of more than {MAX_LIST_BYTES} bytes") from error
        except Exception as error:  # whatever the library raises, the table's state is lost
            raise ConnectionFailure(COMPRESSION_ERROR, f"a header block cannot be read: {error}") from error
        return fields

    def _check_table(self, block: bytes) -> None:
        sizes = list(islice(_table_sizes(block), MAX_TABLE_UPDATES + 1))
        if len(sizes) > MAX_TABLE_UPDATES:
            raise ConnectionFailure(COMPRESSION_ERROR, "more updates of the table's size than can be of use")
        if max(sizes, default=0) > self._largest_table:
            raise ConnectionFailure(COMPRESSION_ERROR, "a table larger than allowed")


def _table_sizes(block: bytes) -> Iterator[int]:
    """The table sizes that a block begins with (RFC 7541, section 6.3)."""
    at = 0
    while b"\x20" <= block[at : at + 1] < b"\x40":
        size, shift = block[at] & 0x1F, 0
        at += 1
        if size == 0x1F:
            for byte in block[at : at + 5]:
                at += 1
                size += (byte & 0x7F) << shift
                shift += 7
                if not byte & 0x80:
                    break
        yield size


def read_fields(fields: Iterable[tuple[bytes, bytes]]) -> Request:
    """What the fields of a request say, and whether they are well-formed (sections 8.1.1, 8.2 and 8.3)."""
    pseudo: dict[bytes, bytes] = {}
    length: int | None = None
    problem = ""
    is_regular = False
    for name, value in fields:
        if name[:1] == b":":
            problem = problem or _pseudo_problem(name, pseudo, is_regular)
            pseudo[name] = value
            continue
        is_regular = True
        problem = problem or _regular_problem(name, value)
        if name == b"content-length":
            problem = problem or _length_problem(value, length)
            length = -1 if problem else int(value)
    path = pseudo.get(b":path", b"")
    if pseudo and not problem:
        problem = _missing(pseudo)
    return Request(path.decode("latin-1"), length, problem, bool(pseudo))


def _pseudo_problem(name: bytes, seen: dict[bytes, bytes], is_late: bool) -> str:
    if name not in (b":method", b":scheme", b":path", b":authority"):
        return f"the pseudo-header {name!r}"
    if is_late:
        return f"{name!r} after a regular field"
    return f"{name!r} twice" if name in seen else ""


def _regular_problem(name: bytes, value: bytes) -> str:
    if not name or name != name.lower():
        return f"the field name {name!r}"
    if name in _CONNECTION_SPECIFIC or (name == b"te" and value != b"trailers"):
        return f"the connection-specific field {name!r}"
    return ""


def _length_problem(value: bytes, before: int | None) -> str:
    if not value.isdigit() or len(value) > MAX_LENGTH_DIGITS:
        return "a content-length that is no number"
    return "two content-lengths" if before not in (None, int(value)) else ""


def _missing(pseudo: dict[bytes, bytes]) -> str:
    for name in (b":method", b":scheme", b":path"):
        if not pseudo.get(name):
            return f"no {name!r}"
    return ""


def literal(name: bytes, value: bytes) -> bytes:
    """A field without indexing, both texts plain (RFC 7541, section 6.2.2). Both under 127 bytes."""
    return bytes((0, len(name))) + name + bytes((len(value),)) + value


# `:status 200` is entry 8 of the static table, `content-type` the name of entry 31.
RESPONSE_BLOCK = b"\x88" + b"\x0f\x10\x10application/grpc"
OK_BLOCK = literal(b"grpc-status", b"0")


def status_block(code: int, message: str) -> bytes:
    """The trailers of a call. Text that a header cannot hold becomes `?`; 120 characters at most."""
    block = literal(b"grpc-status", str(code).encode())
    text = "".join(each if " " <= each <= "~" and each != "%" else "?" for each in message)[:120]
    return block + literal(b"grpc-message", text.encode()) if text else block
