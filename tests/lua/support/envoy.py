"""What of Envoy's Lua API the scripts use (https://www.envoyproxy.io/docs/envoy/latest/configuration/http/http_filters/lua_filter).

Lua calls these methods, so their names are Envoy's.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

MILLISECOND = 1


class Headers:
    """A request's or a response's headers, one value each."""

    def __init__(self, values: Mapping[str, str]) -> None:
        self.values = dict(values)

    def get(self, name: str) -> str | None:
        return self.values.get(name)

    def replace(self, name: str, value: str) -> None:
        assert isinstance(value, str), f"{name} = {value!r}: Envoy takes text"
        self.values[name] = value

    def remove(self, name: str) -> None:
        self.values.pop(name, None)

    def pairs(self) -> list[tuple[str, str]]:
        """What Lua's `pairs` goes through; see `Worker`."""
        return list(self.values.items())


class Metadata:
    """Dynamic metadata, or a filter's metadata of the route if it has no namespaces."""

    def __init__(self, values: dict[str, Any], table: Callable[[Any], Any]) -> None:
        self.values = values
        self._table = table

    def get(self, name: str) -> Any:
        found = self.values.get(name)
        return self._table(found) if isinstance(found, dict) else found

    def set(self, namespace: str, key: str, value: Any) -> None:
        self.values.setdefault(namespace, {})[key] = value


class StreamInfo:
    """A stream's dynamic metadata and its client."""

    def __init__(self, metadata: Metadata, address: str) -> None:
        self._metadata, self._address = metadata, address

    def dynamicMetadata(self) -> Metadata:  # Envoy's name
        return self._metadata

    def downstreamRemoteAddress(self) -> str:  # Envoy's name
        return self._address


class Connection:
    """A client's connection."""

    def __init__(self, is_encrypted: bool) -> None:
        self._tls = object() if is_encrypted else None

    def ssl(self) -> object | None:
        return self._tls


class Stream:
    """One request and then its response, as the scripts see them."""

    def __init__(
        self,
        table: Callable[[Any], Any],
        headers: Mapping[str, str],
        settings: Mapping[str, str] | None = None,
        address: str = "192.0.2.1:4000",
        now: float = 1000.0,
        is_encrypted: bool = False,
    ) -> None:
        self.request = Headers(headers)
        self.response: Headers | None = None
        self.dynamic: dict[str, Any] = {}
        self.now = now
        self._connection = Connection(is_encrypted)
        self.sent: tuple[dict[str, str], str] | None = None
        self.route_cache_cleared = False
        text = "\n".join(f"{name}={value}" for name, value in (settings or {}).items())
        self._route = Metadata({} if settings is None else {"settings": text}, table)
        self._info = StreamInfo(Metadata(self.dynamic, table), address)

    def answered(self, headers: Mapping[str, str], **dynamic: Mapping[str, Any]) -> Stream:
        """The response has come, and these filters (without `envoy.filters.http.`) have left metadata."""
        self.response = Headers(headers)
        for name, values in dynamic.items():
            self.dynamic.setdefault(f"envoy.filters.http.{name}", {}).update(values)
        return self

    def headers(self) -> Headers:
        return self.response or self.request

    def metadata(self) -> Metadata:
        return self._route

    def connection(self) -> Connection:
        return self._connection

    def streamInfo(self) -> StreamInfo:  # Envoy's name
        return self._info

    def timestamp(self, resolution: int) -> str:
        assert resolution == MILLISECOND
        return str(round(self.now * 1000))

    def clearRouteCache(self) -> None:  # Envoy's name
        self.route_cache_cleared = True

    def respond(self, headers: Any, body: str) -> None:
        self.sent = dict(headers.items()), body
