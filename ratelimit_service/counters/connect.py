"""Opens connections to the store: straight, or by way of Sentinel or a cluster's nodes where there are such."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

from redis.asyncio.connection import AbstractConnection, Connection, SSLConnection, UnixDomainSocketConnection
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.crc import key_slot
from redis.exceptions import RedisError

from ratelimit_service.errors import CountersUnavailable
from service_kit.store_url import Address, Login, StoreUrl, Tls, show_address

Connect = Callable[[], Awaitable[AbstractConnection]]

CONNECT_SECONDS = 0.5
_OPTIONS: dict[str, Any] = {
    "socket_connect_timeout": CONNECT_SECONDS,
    "socket_timeout": None,  # the link has its own, for all its requests at once
    "retry": Retry(NoBackoff(), 0),  # the default would hold a request for seconds
    "protocol": 2,
    "driver_info": None,
}


def connector(url: StoreUrl) -> Connect:
    """How to open a connection to the store that the URL names, which is no cluster."""
    if url.kind == "sentinel":
        return _sentinel_connector(url)
    if url.kind == "socket":
        return lambda: _open(UnixDomainSocketConnection(path=url.path, db=url.db, **_OPTIONS, **_login(url.login)))
    return node_connector(url.hosts[0], url)


def node_connector(address: Address, url: StoreUrl) -> Connect:
    """How to open a connection to one server, with the URL's login and TLS."""
    return lambda: _open(_connection(address, url.db, url.login, url.tls))


def _connection(address: Address, db: int, login: Login, tls: Tls | None) -> AbstractConnection:
    options: dict[str, Any] = {"host": address[0], "port": address[1], "db": db} | _OPTIONS | _login(login)
    return Connection(**options) if tls is None else SSLConnection(**options, **_tls(tls))


def _login(login: Login) -> dict[str, Any]:
    return {"username": login.username, "password": login.password}


def _tls(tls: Tls) -> dict[str, Any]:
    return {
        "ssl_ca_certs": tls.ca_file,
        "ssl_certfile": tls.cert_file,
        "ssl_keyfile": tls.key_file,
        "ssl_password": tls.key_password,
        "ssl_check_hostname": tls.checks_name,
        "ssl_cert_reqs": "required" if tls.verifies else "none",
    }


def _sentinel_connector(url: StoreUrl) -> Connect:
    """The primary that a Sentinel names. The Sentinel that replied last is asked first, one that did not comes last."""
    sentinels = list(url.hosts)

    async def connect() -> AbstractConnection:
        reasons = []
        for sentinel in tuple(sentinels):
            try:
                primary = await _ask_sentinel(sentinel, url)
            except CountersUnavailable as error:
                reasons.append(str(error))
                sentinels.append(sentinels.pop(sentinels.index(sentinel)))
                continue
            return await _open(_connection(primary, url.db, url.login, url.tls))
        raise CountersUnavailable(f"no Sentinel names a primary: {'; '.join(reasons)}")

    return connect


async def _ask_sentinel(asked: Address, url: StoreUrl) -> Address:
    """Where the primary is. CountersUnavailable if this Sentinel knows none that is up."""
    connection = _connection(asked, 0, url.sentinel_login, url.sentinel_tls)
    # One that is stalled must not use up the time in which the next would have answered.
    flat = await _ask_once(connection, asked, CONNECT_SECONDS / 4, "SENTINEL", "MASTER", url.master)
    told = dict(zip((key.decode() for key in flat[::2]), (value.decode() for value in flat[1::2]), strict=True))
    flags = set(told["flags"].split(","))
    if "master" not in flags or flags & {"s_down", "o_down"}:
        raise CountersUnavailable(f"{show_address(asked)}: the primary is down")
    return told["ip"], int(told["port"])


async def _ask_once(connection: AbstractConnection, asked: Address, seconds: float, *command: str) -> Any:
    try:
        async with asyncio.timeout(seconds):
            try:
                await (await _open(connection)).send_command(*command)
                return await connection.read_response()
            finally:
                await connection.disconnect(nowait=True)
    except (RedisError, OSError, TimeoutError) as error:
        raise CountersUnavailable(f"{show_address(asked)}: {type(error).__name__}: {error}") from error


async def read_slots(asked: Address, url: StoreUrl) -> dict[Address, list[tuple[int, int]]]:
    """Which primary has which slots, as one node tells it. CountersUnavailable if it cannot."""
    connection = _connection(asked, url.db, url.login, url.tls)
    ranges = await _ask_once(connection, asked, CONNECT_SECONDS, "CLUSTER", "SLOTS")
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
