-- For luacheck (Debian: lua-check). Envoy runs the scripts in LuaJIT.
std = "luajit"
max_line_length = 120
cache = false

-- What Envoy defines.
files["controlplane/translate/lua"] = {read_globals = {"EnvoyTimestampResolution"}}

-- What Redis defines.
files["ratelimit_service"] = {std = "lua51", read_globals = {"redis", "KEYS", "ARGV", "cjson", "struct", "bit"}}
