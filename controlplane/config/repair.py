"""Puts what is unfit out of the way, so that the rules still see the rest: an operator is told everything at once."""

from __future__ import annotations

from collections.abc import Collection, Iterable
from copy import deepcopy
from typing import Any

from pydantic import ValidationError

from controlplane.config.limits_model import NUMBERS, UNLIMITED
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
    """A copy in which unknown keys are gone, and what is unfit is at its default or replaced by something harmless."""
    rest = deepcopy(values)
    unfit: list[Path] = []
    for detail in details:
        path = _readable(detail["loc"])
        if detail["type"] == "extra_forbidden" or detail["loc"][-1:] == ("[key]",):
            _drop(rest, path)
        else:
            unfit.append(path)
    for path in unfit:  # services come before routes, and a harmless route leads to one of them
        _put_aside(rest, path, unfit)
    return rest


def _drop(values: Any, path: Path) -> None:
    for part in path[:-1]:
        values = values[part]
    values.pop(path[-1], None)


def _put_aside(rest: Any, path: Path, unfit: Collection[Path]) -> None:
    """Put the part around `path` out of the way; its names stay where they fit, since others refer to them."""
    match path:
        case ("services", int(index), *_):
            kept = _kept(rest["services"][index], ("name",), path[:2], unfit)
            rest["services"][index] = _harmless_service(index) | kept
        case ("routes", int(index), *_):
            kept = _kept(rest["routes"][index], ("name", "service"), path[:2], unfit)
            rest["routes"][index] = _harmless_route(index, rest) | kept
        case ("auth", "providers", int(index), *_):
            kept = _kept(rest["auth"]["providers"][index], ("name", "default_tier"), path[:3], unfit)
            rest["auth"]["providers"][index] = _harmless_provider(index, rest) | kept
        case ("limits", "tiers", str(tier), *_):
            rest["limits"]["tiers"][tier] = _HARMLESS_LIMIT
        case ("limits", "global", int(index), *_):
            rest["limits"]["global"][index] = {"name": f"unfit-{index}"} | _HARMLESS_LIMIT
        case ("auth" | "limits" as section, str(key), *_):
            rest[section].pop(key, None)
        case (str(section), *_):
            rest.pop(section, None)


def _kept(part: Any, keys: Iterable[str], place: Path, unfit: Collection[Path]) -> dict[str, str]:
    held = part if isinstance(part, dict) else {}
    return {key: held[key] for key in keys if isinstance(held.get(key), str) and (*place, key) not in unfit}


_PYDANTIC_PARTS = frozenset({"[key]", NUMBERS, UNLIMITED})
_HARMLESS_LIMIT = {"rps": 1_000_000, "rpm": 1_000_000, "burst": 1_000_000}


def _harmless_service(index: int) -> dict[str, Any]:
    return {"name": f"unfit-{index}", "endpoints": [{"url": "http://192.0.2.1:1"}]}


def _harmless_route(index: int, rest: Any) -> dict[str, Any]:
    match = {"path": f"/unfit-{index}", "methods": ["GET"]}
    return {"name": f"unfit-{index}", "match": match, "service": rest["services"][0]["name"]}


def _harmless_provider(index: int, rest: Any) -> dict[str, Any]:
    keys = {"algorithms": ["HS256"], "secret": "${UNFIT}"}
    return {"name": f"unfit-{index}", "default_tier": next(iter(rest["limits"]["tiers"]))} | keys


def _readable(loc: tuple[str | int, ...]) -> Path:
    """Without the parts that pydantic adds for itself: `[key]` after a mapping's key, and the tags of unions."""
    return tuple(part for part in loc if part not in _PYDANTIC_PARTS)
