"""How a process runs: environment variables, each declared once beside its field, read once and checked whole.

    @dataclass(frozen=True)
    class Settings:
        listen: str = variable("MGW_LISTEN", address, "127.0.0.1:9001")
        \"\"\"Where it serves gRPC: `host:port`, or `unix:PATH`.\"\"\"

An empty variable counts as absent. The text below a field is its reference (docs/reference/environment.md).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any, Literal, TypeVar

from service_kit.errors import StartFailed

T = TypeVar("T")
Transport = Literal["native", "grpcio"]

LOG_LEVELS = ("debug", "info", "warning", "error")
TRANSPORTS = ("native", "grpcio")


@dataclass(frozen=True)
class Variable:
    """Where a field's value comes from, and how its text is read. `read` raises ValueError, which says what fits."""

    name: str
    read: Callable[[str], Any]
    is_secret: bool = False
    may_hold_password: bool = False


def variable(
    name: str, read: Callable[[str], T], default: T, *, is_secret: bool = False, may_hold_password: bool = False
) -> T:
    """A field of a settings class.

    Of a secret only whether it is set is ever printed. What may hold a password has a value that hides it as text, and
    is not repeated where it does not fit.
    """
    declared = Variable(name, read, is_secret, may_hold_password)
    value: T = field(default=default, repr=not is_secret, metadata={"variable": declared})
    return value


def variables(settings: type) -> Mapping[str, Variable]:
    """The variables of a settings class, by the names of their fields."""
    return {each.name: each.metadata["variable"] for each in fields(settings)}


def read(settings: type[T], environment: Mapping[str, str]) -> T:
    """Settings from the environment. Raises StartFailed, in one line, with every variable that does not fit."""
    values, problems = {}, []
    for name, declared in variables(settings).items():
        text = environment.get(declared.name, "").strip()
        if not text:
            continue
        try:
            values[name] = declared.read(text)
        except ValueError as error:
            is_hidden = declared.is_secret or declared.may_hold_password
            shown = "" if is_hidden else f"={text!r}"
            problems.append(f"{declared.name}{shown}: {error}")
    if problems:
        raise StartFailed("; ".join(problems))
    return settings(**values)


def shown(settings: Any) -> dict[str, str | None]:
    """Every setting as text that may be printed."""
    found: dict[str, str | None] = {}
    for name, declared in variables(type(settings)).items():
        value = getattr(settings, name)
        if declared.is_secret:
            found[name] = "***" if value else None
        else:
            found[name] = None if value is None else _text(value)
    return found


def _text(value: Any) -> str:
    return ",".join(map(str, value)) if isinstance(value, tuple) else str(value)


# --- how texts are read


def text(value: str) -> str:
    """As it is."""
    return value


def path(value: str) -> Path:
    """A file or a folder. It need not exist."""
    return Path(value)


def host_port(value: str) -> str:
    """`host:port`."""
    host, _, port = value.rpartition(":")
    if not (host and port.isdecimal() and len(port) <= 5 and int(port) < 65536):
        raise ValueError("give it as host:port")
    return value


def address(value: str) -> str:
    """`host:port` or `unix:PATH`."""
    return value if value.startswith("unix:") and len(value) > len("unix:") else host_port(value)


def number(value: str) -> float:
    """A number above 0."""
    try:
        found = float(value)
    except ValueError:
        found = 0.0
    if not 0 < found < 1e9:
        raise ValueError("give a number above 0")
    return found


def whole(value: str) -> int:
    """A whole number above 0."""
    if not value.isdecimal() or not 0 < int(value) < 1_000_000_000:
        raise ValueError("give a whole number above 0")
    return int(value)


def switch(value: str) -> bool:
    """`1` or `0`."""
    known = {"1": True, "true": True, "yes": True, "0": False, "false": False, "no": False}
    if value.lower() not in known:
        raise ValueError("give 1 or 0")
    return known[value.lower()]


def one_of(*allowed: str) -> Callable[[str], str]:
    """One of these words, in any case."""

    def read_word(value: str) -> str:
        if value.lower() not in allowed:
            raise ValueError(f"use one of {', '.join(allowed)}")
        return value.lower()

    return read_word


def transport(value: str) -> Transport:
    """The name of a gRPC server."""
    return "grpcio" if one_of(*TRANSPORTS)(value) == "grpcio" else "native"


@dataclass(frozen=True)
class ServiceSettings:
    """The environment that both services share. Defaults are safe for production."""

    listen: str = variable("MGW_LISTEN", address, "127.0.0.1:9000")
    """Where it serves gRPC: `host:port`, or `unix:PATH`."""
    metrics_listen: str | None = variable("MGW_METRICS_LISTEN", host_port, None)
    """Where it serves metrics: `host:port`. Without it, nowhere."""
    controlplane: str | None = variable("MGW_CONTROLPLANE", address, None)
    """The control plane's xDS address."""
    node_id: str = variable("MGW_NODE_ID", text, "service-0")
    """Its name to the control plane. Each replica needs its own."""
    state_dir: Path | None = variable("MGW_STATE_DIR", path, None)
    """Where the last good policy is kept, so that it starts without the control plane."""
    policy_file: Path | None = variable("MGW_POLICY_FILE", path, None)
    """A policy from a file, instead of from a control plane."""
    transport: Transport = variable("MGW_TRANSPORT", transport, "native")
    """`native`, or `grpcio`: the portable one, which costs several times the CPU."""
    log_level: str = variable("LOG_LEVEL", one_of(*LOG_LEVELS), "info")
    """`debug`, `info`, `warning` or `error`."""

    def last_good(self, name: str) -> Path | None:
        """The file of this name in `state_dir`; None without a `state_dir`."""
        return self.state_dir / name if self.state_dir is not None else None

    def check_policy_source(self) -> None:
        """Raises StartFailed where no policy can come from anywhere."""
        if self.controlplane is None and self.policy_file is None:
            raise StartFailed("no policy: set MGW_CONTROLPLANE to host:port or MGW_POLICY_FILE to a path")
