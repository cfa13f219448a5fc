"""`mgw up`: run a gateway on this machine."""

from __future__ import annotations

import os
import secrets
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated

import typer

from controlplane.local.exits import USAGE, Failure
from controlplane.local.numbers import whole_number
from controlplane.local.options import EMBEDDED, LOG_MIB, Options, parse_only, parse_wraps
from controlplane.local.plan import Surroundings, fixed_ports, plan, port_names
from controlplane.local.resources import default_config
from controlplane.local.runfile import Lock, RunDirectory, make_secret, read_run, read_secret
from service_kit.store_url import read_store_url
from service_kit.tls_files import check_files

DEFAULT_DIRECTORY = Path(".mgw")

Replicas = Annotated[int, typer.Option(min=1, max=50, help="How many of them.")]


def command(
    directory: Annotated[Path, typer.Option("--dir", help="Where state, logs and run.json are.")] = DEFAULT_DIRECTORY,
    config: Annotated[
        Path | None, typer.Option(help="The gateway's configuration.  [default: the one that mgw comes with]")
    ] = None,
    detach: Annotated[bool, typer.Option("--detach", help="Return when ready; `mgw down` stops it.")] = False,
    demo: Annotated[bool, typer.Option("--demo", help="Start demo upstreams too, and say what to try.")] = False,
    redis: Annotated[
        str | None, typer.Option(help="URL, `embedded` or `none`.  [default: $REDIS_URL, embedded]")
    ] = None,
    authz: Replicas = 1,
    ratelimit: Replicas = 1,
    controlplane: Replicas = 1,
    envoy: Replicas = 1,
    port: Annotated[
        int | None, typer.Option(min=1, max=65535, help="The gateway's port.  [default: a free one]")
    ] = None,
    wrap: Annotated[list[str] | None, typer.Option(help="COMPONENT='COMMAND …' to run a part under a command.")] = None,
    only: Annotated[list[str] | None, typer.Option(help="Parts to start; where it is up: dead ones to revive.")] = None,
) -> int | None:
    """Run a gateway here: real Envoy and Valkey, the control plane and both services, without containers."""
    began = time.monotonic()
    options = Options(
        directory=directory.absolute(),
        config=(config or default_config()).absolute(),
        host=os.environ.get("API_GATEWAY_HOST") or "127.0.0.1",
        port=port or _port_of(os.environ),
        redis=_redis_of(redis, os.environ),
        demo=demo,
        replicas={"authz": authz, "ratelimit": ratelimit, "controlplane": controlplane, "envoy": envoy},
        wraps=parse_wraps(wrap or []),
        only=parse_only(only or []),
        log_mib=_log_mib_of(os.environ),
    )
    runs_in = RunDirectory(options.directory)
    runs_in.create()
    lock = Lock(runs_in)
    if not lock.take():
        return _revive(runs_in, only or [], wrap or [])
    return _run(options, lock, detach=detach, began=began)


def _revive(directory: RunDirectory, only: list[str], wrap: list[str]) -> int | None:
    """The directory is up: start its dead parts again, if that is what was asked for."""
    from controlplane.local import control, supervisor
    from controlplane.local.kept_environment import digests

    if not only:
        run = read_run(directory) or {}
        raise Failure(
            f"{directory.path} is already up at {run.get('gateway', 'an address that is not known yet')}: "
            "`mgw down` stops it, `--only NAME` starts a dead part again"
        )
    request = {"verb": "start", "only": only, "wrap": wrap, "environment": digests(os.environ)}
    reply = control.ask(directory, request, supervisor.READY_SECONDS + 10)
    started, kept = reply["started"], reply["kept"]
    _say(f"started {', '.join(started)}" if started else "all of that runs already")
    if kept:
        _say(
            f"not taken over: {', '.join(kept)}. This gateway keeps what it was started with; "
            "`mgw down` and another `mgw up` take what is here now"
        )
    return None


def _run(options: Options, lock: Lock, *, detach: bool, began: float) -> int | None:
    from controlplane.local import session
    from controlplane.local.bootstrap import write_bootstraps
    from controlplane.local.heap import max_heap_bytes
    from controlplane.local.hints import demo_hints
    from controlplane.local.ports import Ports

    if not options.config.is_file():
        raise Failure(f"no configuration at {options.config}; give one with --config")
    heap_bytes = max_heap_bytes(os.environ)
    directory = RunDirectory(options.directory)
    for old in directory.logs.glob("*.log*"):
        old.unlink()  # of an earlier gateway in this directory
    ports = Ports()
    around = _surroundings(options, directory)
    gateway = plan(options, ports.reserve(port_names(options), fixed_ports(options)), around)
    write_bootstraps(gateway, options.config, heap_bytes, around.key_sets)
    ports.hand_over()

    def on_ready() -> None:
        _say(f"ready after {time.monotonic() - began:.1f} s: {gateway.gateway} (operator API: {gateway.api})")
        if options.demo:
            sys.stdout.write(demo_hints(gateway.gateway, around.jwt_secret))
            sys.stdout.flush()

    if not detach:
        return session.run_foreground(gateway, options.only, lock, on_ready)
    session.run_detached(gateway, options.only, lock)
    on_ready()
    return None


def _surroundings(options: Options, directory: RunDirectory) -> Surroundings:
    from controlplane.local.binaries import find_envoy, find_valkey
    from controlplane.local.keysets import key_sets

    jwt_secret = os.environ.get("JWT_SECRET") or _own_secret(directory)
    return Surroundings(
        environment=dict(os.environ),
        envoy=find_envoy(os.environ),
        valkey=find_valkey(os.environ) if options.redis == EMBEDDED else None,
        jwt_secret=jwt_secret,
        key_sets=key_sets(options.config, os.environ | {"JWT_SECRET": jwt_secret}),
        api_token=secrets.token_urlsafe(32),
        processors=_workers_of(os.environ),
    )


def _own_secret(directory: RunDirectory) -> str:
    secret = read_secret(directory)
    if secret is None:
        secret = make_secret(directory)
        _say(f"JWT_SECRET is not set: made a random one in {directory.secret}")
    return secret


def _redis_of(given: str | None, environment: Mapping[str, str]) -> str:
    """A store's URL, `embedded` or `none`. A URL that does not fit is not repeated: it may hold a password."""
    name, text = ("--redis", given.strip()) if given else ("REDIS_URL", environment.get("REDIS_URL", "").strip())
    if text in ("", EMBEDDED):
        return EMBEDDED
    try:
        check_files(read_store_url(text))
    except ValueError as error:
        raise Failure(f"{name}: {error}", USAGE) from error
    return text


def _port_of(environment: Mapping[str, str]) -> int | None:
    text = environment.get("API_GATEWAY_PORT")
    if not text:
        return None
    if not text.isdigit() or not 0 < int(text) < 65536:
        raise Failure(f"API_GATEWAY_PORT is no port: {text!r}", USAGE)
    return int(text)


def _workers_of(environment: Mapping[str, str]) -> int:
    """Envoy's worker threads: API_GATEWAY_WORKERS, or one for each core that this process may use."""
    workers = whole_number(environment, "API_GATEWAY_WORKERS", 1, 1024)
    if workers is not None:
        return workers
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _log_mib_of(environment: Mapping[str, str]) -> int:
    return whole_number(environment, "MGW_LOG_MIB", 1, 1 << 20) or LOG_MIB


def _say(text: str) -> None:
    typer.echo(f"mgw: {text}", err=True)
