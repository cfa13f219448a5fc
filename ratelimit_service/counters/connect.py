"""Where the store is: from a URL to a connection, by way of Sentinel or a cluster's nodes where there are such."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any
from urllib.parse import unquote, urlsplit

from redis.asyncio.connection import AbstractConnection, Connection, ConnectionPool
from redis.asyncio.retry import Retry
from redis.asyncio.sentinel import Sentinel
from redis.backoff import NoBackoff
from redis.crc import key_slot
from redis.exceptions import RedisError

from ratelimit_service.errors import CountersUnavailable
from service_kit.errors import StartFailed

Connect = Callable[[], Awaitable[AbstractConnection]]
Address = tuple[str, int]

CONNECT_SECONDS = 0.5
_OPTIONS: dict[str, Any] = {
    "socket_connect_timeout": CONNECT_SECONDS,
    "socket_timeout": None,  # the link has its own, for all its requests at once
    "retry": Retry(NoBackoff(), 0),  # the default would hold a request for seconds
    "protocol": 2,
    "driver_info": None,
}


def connector(url: str) -> Connect:
    """How to open a connection to the store that the URL names."""
    try:
        if url.startswith("redis+sentinel://"):
            return _sentinel_connector(url)
        pool = ConnectionPool.from_url(url, **_OPTIONS)
    except ValueError as error:
        raise StartFailed(f"REDIS_URL: {error}") from error

    async def connect() -> AbstractConnection:
        connection: AbstractConnection = pool.make_connection()  # type: ignore[no-untyped-call]  # untyped in redis-py
        return await _open(connection)

    return connect


def _sentinel_connector(url: str) -> Connect:
    """`redis+sentinel://[user:password@]host1:26379,host2/master-name/db`."""
    hosts, login, (name, db) = split_url(url, 26379)
    if not name:
        raise StartFailed("REDIS_URL: redis+sentinel:// needs the master's name: redis+sentinel://host:26379/mymaster")
    # One sentinel that is stalled must not use up the time in which the next would have answered.
    patience = {"socket_timeout": CONNECT_SECONDS / 4, "socket_connect_timeout": CONNECT_SECONDS / 4}
    sentinel = Sentinel(hosts, sentinel_kwargs=_OPTIONS | patience)  # type: ignore[no-untyped-call]  # untyped in redis-py

    async def connect() -> AbstractConnection:
        host, port = await sentinel.discover_master(name)
        return await _open(Connection(host=host, port=port, db=int(db or 0), **_OPTIONS, **login))

    return connect


def split_url(url: str, default_port: int) -> tuple[list[Address], dict[str, Any], tuple[str, str]]:
    """The hosts of a URL that names several, the login, and the two parts of its path."""
    parts = urlsplit(url)
    credentials, _, hosts = parts.netloc.rpartition("@")
    user, _, password = credentials.partition(":")
    pairs = [host.partition(":") for host in hosts.split(",")]
    first, _, second = parts.path.strip("/").partition("/")
    login = {"username": unquote(user) or None, "password": unquote(password) or None}
    return [(host, int(port or default_port)) for host, _, port in pairs], login, (first, second)


def node_connector(address: Address, login: dict[str, Any]) -> Connect:
    """How to open a connection to one node of a cluster."""

    async def connect() -> AbstractConnection:
        return await _open(Connection(host=address[0], port=address[1], **_OPTIONS, **login))

    return connect


async def read_slots(asked: Address, login: dict[str, Any]) -> dict[Address, list[tuple[int, int]]]:
    """Which primary has which slots, as one node tells it. CountersUnavailable if it cannot."""
    try:
        async with asyncio.timeout(CONNECT_SECONDS):
            connection = await node_connector(asked, login)()
            try:
                await connection.send_command("CLUSTER", "SLOTS")
                ranges = await connection.read_response()
            finally:
                await connection.disconnect(nowait=True)
    except (RedisError, OSError, TimeoutError) as error:
        raise CountersUnavailable(f"{asked[0]}:{asked[1]}: {type(error).__name__}: {error}") from error
    slots: dict[Address, list[tuple[int, int]]] = {}
    for first, last, (host, port, *_), *_ in ranges:
        # A node that does not know its own name leaves it out: it is where we asked.
        slots.setdefault((host.decode() if host else asked[0], port), []).append((first, last))
    return slots


def slot_of(key: str) -> int:
    """The slot of a key in a cluster."""
    slot: int = key_slot(key.encode())
    return slot


async def _open(connection: AbstractConnection) -> AbstractConnection:
    await connection.connect()  # type: ignore[no-untyped-call]  # untyped in redis-py
    return connection
