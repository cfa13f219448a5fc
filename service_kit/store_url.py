"""Where the store of counters is: `REDIS_URL`, taken apart. Pure.

A URL that does not fit is never repeated, not even in part: where its password begins and ends is then not known. A
problem names the place instead ("the port of the 2nd host").
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from ipaddress import AddressValueError, IPv6Address
from typing import Literal
from urllib.parse import quote, unquote

Kind = Literal["none", "server", "socket", "sentinel", "cluster"]
Address = tuple[str, int]

SCHEMES: Mapping[str, tuple[Kind, bool]] = {
    "redis": ("server", False),
    "rediss": ("server", True),
    "unix": ("socket", False),
    "redis+sentinel": ("sentinel", False),
    "rediss+sentinel": ("sentinel", True),
    "redis+cluster": ("cluster", False),
    "rediss+cluster": ("cluster", True),
}
"""Each scheme: what it names, and whether by TLS."""

_PORTS = {"server": 6379, "cluster": 6379, "sentinel": 26379}
_TLS_OPTIONS = ("ssl_ca_certs", "ssl_certfile", "ssl_keyfile", "ssl_password", "ssl_check_hostname", "ssl_cert_reqs")
_SENTINEL_OPTIONS = ("sentinel_username", "sentinel_password", "sentinel_tls")
_SWITCHES = {"true": True, "1": True, "yes": True, "false": False, "0": False, "no": False}
_HOST = re.compile(r"(?:\[([^\[\]]+)\]|([^:\[\]]*))(?::(.*))?", re.DOTALL)
_NAME = re.compile(r"[A-Za-z0-9_]([A-Za-z0-9._-]*[A-Za-z0-9_.])?")
_MASTER = re.compile(r"[A-Za-z0-9._-]+")


@dataclass(frozen=True)
class Login:
    """Who we say that we are. Both may be absent."""

    username: str | None = None
    password: str | None = field(default=None, repr=False)

    def __bool__(self) -> bool:
        return self.username is not None or self.password is not None


@dataclass(frozen=True)
class Tls:
    """How a server is verified, and what we show it. `verifies` off is for tests."""

    ca_file: str | None = None
    cert_file: str | None = None
    key_file: str | None = None
    key_password: str | None = field(default=None, repr=False)
    checks_name: bool = True
    verifies: bool = True


@dataclass(frozen=True)
class StoreUrl:
    """A store's address. As text it holds no credentials, and may be printed."""

    kind: Kind
    hosts: tuple[Address, ...] = ()
    login: Login = Login()
    tls: Tls | None = None
    db: int = 0
    path: str = ""
    """The socket, of the kind `socket`."""
    master: str = ""
    """Its name to the Sentinels, which may have a login and TLS of their own."""
    sentinel_login: Login = Login()
    sentinel_tls: Tls | None = None
    shown: str = ""

    def __str__(self) -> str:
        return self.shown


def read_store_url(text: str) -> StoreUrl:
    """The store that a text names. ValueError says what is wrong, and repeats nothing of it."""
    if text == "none":
        return StoreUrl("none", shown=text)
    scheme, separator, rest = text.partition("://")
    if not separator or scheme.lower() not in SCHEMES:
        raise ValueError(f"use one of {', '.join(f'{each}://' for each in SCHEMES)}, or none to count in memory")
    if re.search(r"[\x00-\x20\x7f]", text):
        raise ValueError("a URL has no spaces, line ends or control characters: write them as %20 and so on")
    return _Reader(scheme.lower(), rest).read()


def show_address(address: Address) -> str:
    """As it stands in a URL."""
    host, port = address
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


class _Reader:
    """Reads what stands behind `scheme://`."""

    def __init__(self, scheme: str, rest: str) -> None:
        self._scheme = scheme
        self._kind, self._is_tls = SCHEMES[scheme]
        self._place, _, query = rest.partition("?")
        if self._kind != "socket" and ("#" in rest or "@" in self._place.partition("/")[2]):
            raise ValueError("write the characters / ? # @ and % of a user or password as %2F %3F %23 %40 and %25")
        self._query = query

    def read(self) -> StoreUrl:
        if self._kind == "socket":
            return self._socket()
        authority, _, path = self._place.partition("/")
        credentials, at, names = authority.rpartition("@")
        hosts = self._hosts(names)
        options = self._options()
        master, db = self._path(path)
        if "db" in options:
            db = _number(options["db"])
        tls = _tls(options) if self._is_tls else None
        sentinel_tls = self._sentinel_tls(options)
        return StoreUrl(
            self._kind,
            hosts,
            _login(credentials, options),
            tls,
            db,
            master=master,
            sentinel_login=Login(options.get("sentinel_username"), options.get("sentinel_password")),
            sentinel_tls=sentinel_tls,
            shown=self._shown(bool(at), ",".join(map(show_address, hosts)), master, db, options),
        )

    def _socket(self) -> StoreUrl:
        credentials, at, path = (
            self._place.rpartition("@") if not self._place.startswith("/") else ("", "", self._place)
        )
        if not path.startswith("/"):
            raise ValueError("give the socket's whole path: unix:///path/redis.sock")
        options = self._options()
        db = _number(options.get("db", "0"))
        return StoreUrl(
            "socket",
            login=_login(credentials, options),
            db=db,
            path=unquote(path),
            shown=_with_options(f"unix://{'***@' if at else ''}{path}", options),
        )

    def _hosts(self, names: str) -> tuple[Address, ...]:
        parts = names.split(",")
        if self._kind == "server" and len(parts) > 1:
            raise ValueError(
                f"{self._scheme}:// names one server: use {self._scheme}+sentinel:// or {self._scheme}+cluster://"
                " for several hosts"
            )
        default = _PORTS[self._kind]
        return tuple(_address(part, default, _nth(at, len(parts))) for at, part in enumerate(parts))

    def _path(self, path: str) -> tuple[str, int]:
        """The master's name and the number of the database."""
        if self._kind != "sentinel":
            db = _number(path or "0")
            if db and self._kind == "cluster":
                raise ValueError("a cluster has no database but 0")
            return "", db
        name, _, number = path.partition("/")
        if not name:
            raise ValueError(f"{self._scheme}:// needs the master's name: {self._scheme}://host:26379/mymaster")
        if not _MASTER.fullmatch(unquote(name)):
            raise ValueError("a master's name has letters, digits, dots, dashes and underscores")
        return unquote(name), _number(number or "0")

    def _options(self) -> dict[str, str]:
        """The parameters behind the `?`, by name."""
        allowed = self._allowed()
        found: dict[str, str] = {}
        for at, part in enumerate(filter(None, self._query.split("&"))):
            name, separator, value = part.partition("=")
            if name in _TLS_OPTIONS and name not in allowed:
                raise ValueError(f"{name} needs TLS: write rediss for redis")
            if name not in allowed:
                raise ValueError(f"parameter {at + 1} is not known: use {', '.join(allowed)}")
            if not separator or not value:
                raise ValueError(f"{name} has no value")
            if name in found:
                raise ValueError(f"{name} is there twice")
            found[name] = unquote(value)
        return found

    def _allowed(self) -> tuple[str, ...]:
        names: tuple[str, ...] = ("username", "password", *(() if self._kind == "cluster" else ("db",)))
        if self._kind == "sentinel":
            return (*names, *_SENTINEL_OPTIONS, *_TLS_OPTIONS)
        return (*names, *_TLS_OPTIONS) if self._is_tls else names

    def _sentinel_tls(self, options: Mapping[str, str]) -> Tls | None:
        """Sentinels have the TLS of the servers, unless `sentinel_tls` says otherwise."""
        has = _switch(options, "sentinel_tls", self._is_tls)
        given = [name for name in _TLS_OPTIONS if name in options]
        if given and not has and not self._is_tls:
            raise ValueError(f"{given[0]} needs TLS: write rediss for redis, or sentinel_tls=true")
        return _tls(options) if has and self._kind == "sentinel" else None

    def _shown(self, has_login: bool, hosts: str, master: str, db: int, options: Mapping[str, str]) -> str:
        path = "" if self._kind == "cluster" else f"/{master}/{db}" if master else f"/{db}"
        return _with_options(f"{self._scheme}://{'***@' if has_login else ''}{hosts}{path}", options)


def _with_options(text: str, options: Mapping[str, str]) -> str:
    told = [f"{name}={'***' if _is_secret(name) else quote(value, '/:')}" for name, value in options.items()]
    return f"{text}?{'&'.join(told)}" if told else text


def _is_secret(option: str) -> bool:
    return option.endswith(("password", "username"))


def _nth(at: int, count: int) -> str:
    return "the host" if count == 1 else f"host {at + 1}"


def _address(text: str, default_port: int, what: str) -> Address:
    found = _HOST.fullmatch(text)
    if found is None or (text.count(":") > 1 and not text.startswith("[")):
        raise ValueError(f"{what} is not host:port; an IPv6 address stands in brackets: [::1]:6379")
    bracketed, name, port = found.groups()
    host = _ipv6(unquote(bracketed), what) if bracketed else name
    if not host:
        raise ValueError(f"{what} is missing" if not port else f"{what} has a port and no name")
    if not bracketed and not _NAME.fullmatch(host):
        raise ValueError(f"{what} is no host's name or address")
    return host, default_port if port is None else _port(port, what)


def _ipv6(text: str, what: str) -> str:
    try:
        return str(IPv6Address(text))
    except AddressValueError:
        raise ValueError(f"{what} is no IPv6 address between its brackets") from None


def _port(text: str, what: str) -> int:
    if not (text.isascii() and text.isdecimal() and len(text) <= 5 and 0 < int(text) < 65536):
        raise ValueError(f"the port of {what} is no number from 1 to 65535")
    return int(text)


def _number(text: str) -> int:
    if not (text.isascii() and text.isdecimal() and len(text) <= 9):
        raise ValueError("the database is a number: /0")
    return int(text)


def _login(credentials: str, options: Mapping[str, str]) -> Login:
    """What stands before the `@`; a parameter goes before it."""
    user, _, password = credentials.partition(":")
    return Login(
        options.get("username", unquote(user)) or None,
        options.get("password", unquote(password)) or None,
    )


def _tls(options: Mapping[str, str]) -> Tls:
    if "ssl_keyfile" in options and "ssl_certfile" not in options:
        raise ValueError("ssl_keyfile needs ssl_certfile")
    if options.get("ssl_cert_reqs", "required") not in ("required", "none"):
        raise ValueError("ssl_cert_reqs is required or none")
    return Tls(
        options.get("ssl_ca_certs"),
        options.get("ssl_certfile"),
        options.get("ssl_keyfile"),
        options.get("ssl_password"),
        _switch(options, "ssl_check_hostname", default=True),
        options.get("ssl_cert_reqs", "required") == "required",
    )


def _switch(options: Mapping[str, str], name: str, default: bool) -> bool:
    if name not in options:
        return default
    if options[name].lower() not in _SWITCHES:
        raise ValueError(f"{name} is true or false")
    return _SWITCHES[options[name].lower()]
