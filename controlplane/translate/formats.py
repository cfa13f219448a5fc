"""Envoy's substitution formats (command operators) that several modules use."""

from __future__ import annotations

import json


def first_of(*operators: tuple[str, str]) -> str:
    """The first of these, each a command and its parameter, that has a value."""
    listed = [{"command": command, "param": param} if param else {"command": command} for command, param in operators]
    return f"%COALESCE({json.dumps({'operators': listed})})%"


def valid_id(header: str) -> tuple[str, str]:
    """A request header's value as `lua/request_ids.lua` accepts it; else an expression that fails: no value."""
    value = f"request.headers['{header}']"
    is_valid = f"size({value}) <= 128 && {value}.matches('^[A-Za-z0-9._-]+$')"
    return "CEL", f"{is_valid} ? {value} : request.headers['']"
