"""One Envoy worker: a LuaJIT of its own with one module, in which no unknown global can be read or written."""

from __future__ import annotations

from collections.abc import Mapping, Set
from typing import Any

from lupa.luajit21 import LuaRuntime

from controlplane.translate import headers, lua_filter
from controlplane.translate.lua_literal import Literal, literal
from tests.lua.support.envoy import MILLISECOND, Metadata, Stream

PAIRS = """
local of_tables = pairs
return function(pairs_of)
  pairs = function(value) -- Envoy's objects have a __pairs of their own
    if type(value) ~= "userdata" then return of_tables(value) end
    local all, at = pairs_of(value), 0
    return function()
      at = at + 1
      local pair = all[at]
      if pair then return pair[1], pair[2] end
    end
  end
end
"""
STRICT = """
setmetatable(_G, {
  __index = function(_, name) error("unknown global " .. name) end,
  __newindex = function(_, name) error("new global " .. name) end,
})
"""


class Worker:
    """A module with what it needs. What it gives are attributes: `Worker("path").normalised("/a")`."""

    def __init__(
        self, module: str, config: Mapping[str, Literal] | None = None, left_out: Set[str] = frozenset()
    ) -> None:
        self.lua = LuaRuntime(encoding="latin-1")
        self.lua.globals().EnvoyTimestampResolution = self.lua.table_from({"MILLISECOND": MILLISECOND})
        self.lua.execute(PAIRS)(lambda headers: self.table(headers.pairs()))
        self.lua.execute(STRICT)
        self.modules: dict[str, Any] = {
            "names": self.lua.eval(literal(headers.for_lua())),
            "config": self.lua.eval(literal(config or {})),
            **dict.fromkeys(left_out),
        }
        self._root = self._loaded(module)

    def _loaded(self, module: str) -> Any:
        if module not in self.modules:
            needed = [self._loaded(need) for need in lua_filter.needs(module)]
            self.modules[module] = self.lua.compile(lua_filter.source(module))(*needed)
        return self.modules[module]

    def __getattr__(self, name: str) -> Any:
        return self._root[name]

    def table(self, values: Any) -> Any:
        """The values as Lua tables."""
        return self.lua.table_from(values, recursive=True)

    def metadata(self, **filters: Mapping[str, Any]) -> Metadata:
        """Dynamic metadata of filters, named without `envoy.filters.http.`."""
        return Metadata({f"envoy.filters.http.{name}": dict(values) for name, values in filters.items()}, self.table)

    def stream(self, headers: Mapping[str, str], settings: Mapping[str, str] | None = None, **more: Any) -> Stream:
        """A request that arrives at this worker."""
        return Stream(self.table, headers, settings, **more)

    def request(self, stream: Stream) -> Stream:
        """Let the script see the request."""
        self.envoy_on_request(stream)
        return stream

    def response(
        self, stream: Stream, headers: Mapping[str, str] | None = None, **filters: Mapping[str, Any]
    ) -> Stream:
        """Let the script see the response, after filters have set dynamic metadata."""
        self.envoy_on_response(stream.answered(headers or {}, **filters))
        return stream


def python(value: Any) -> Any:
    """A Lua table as a dict, with the tables in it."""
    return {key: python(child) for key, child in value.items()} if hasattr(value, "items") else value
