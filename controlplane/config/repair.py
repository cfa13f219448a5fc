"""Puts what is unfit out of the way, so that the rules still see the rest: an operator is told everything at once."""

from __future__ import annotations

from collections.abc import Iterable
from copy import deepcopy
from typing import Any

from pydantic import ValidationError

from controlplane.config.model import GatewayConfig
from controlplane.config.rules import Finding
from service_kit.bounded_yaml import Path


def shape(values: Any) -> tuple[GatewayConfig | None, list[Finding]]:
    """The values as a model, and a finding for each field that does not fit.

    With findings, the model is what remains after the unfit parts are put out of the way, so that the rules still see
    the rest; None where nothing sensible remains.
    """
    try:
        return GatewayConfig.model_validate(values), []
    except ValidationError as error:
        details = error.errors()
    findings = [_finding(detail) for detail in details]
    try:
        return GatewayConfig.model_validate(_without(values, details)), findings
    except (ValidationError, LookupError, TypeError, AttributeError):  # too unfit to be put out of the way
        return None, findings


def _finding(detail: Any) -> Finding:
    messages = {"extra_forbidden": "no such key", "missing": "is required"}
    return _readable(detail["loc"]), messages.get(detail["type"], detail["msg"].removeprefix("Value error, "))


def _without(values: Any, details: Iterable[Any]) -> Any:
    """A copy in which unknown keys are gone and unfit routes, services and tiers are replaced by harmless ones."""
    rest = deepcopy(values)
    for detail in details:
        match _readable(detail["loc"]):
            case (*around, str(key)) if detail["type"] == "extra_forbidden":
                holder = rest
                for part in around:
                    holder = holder[part]
                holder.pop(key, None)
            case ("routes", int(index), *_):
                rest["routes"][index] = _harmless_route(rest["routes"][index], index, rest)
            case ("services", int(index), *_):
                name = rest["services"][index].get("name", f"unfit-{index}")
                rest["services"][index] = {"name": name, "endpoints": [{"url": "http://192.0.2.1:1"}]}
            case ("limits", "tiers", str(tier), *_):
                rest["limits"]["tiers"][tier] = _HARMLESS_LIMIT
            case ("limits", "global", int(index), *_):
                rest["limits"]["global"][index] = {"name": f"unfit-{index}"} | _HARMLESS_LIMIT
    return rest


_HARMLESS_LIMIT = {"rps": 1_000_000, "rpm": 1_000_000, "burst": 1_000_000}


def _harmless_route(route: Any, index: int, values: Any) -> dict[str, Any]:
    kept = {key: route[key] for key in ("name", "service") if isinstance(route.get(key), str)}
    some_service = {"service": values["services"][0]["name"]}
    return {"name": f"unfit-{index}", "match": {"path": f"/unfit-{index}", "methods": ["GET"]}} | some_service | kept


def _readable(loc: tuple[str | int, ...]) -> Path:
    """Without the parts that pydantic adds for itself, such as `[key]` after a mapping's key."""
    return tuple(part for part in loc if part != "[key]")
