"""The whole translation, kept in files that a review reads line by line.

To accept a change: MGW_UPDATE_GOLDEN=1 pytest tests/golden, and read the difference.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Mapping
from importlib import resources
from pathlib import Path
from typing import Any

import pytest

from controlplane import protos
from controlplane.config import envoy_validate, load
from controlplane.config.model import GatewayConfig
from controlplane.topology import Topology
from controlplane.translate import assemble
from controlplane.translate.jwt_authn import NO_KEYS, EnvoyKeys, held
from controlplane.xds.resources import LISTENER, ORDER, ROUTE, short
from controlplane.xds.snapshot import Snapshot
from tests.support.configs import (
    ENVIRONMENT,
    ROOT,
    TOPOLOGY,
    WIDE_TOPOLOGY,
    default_config,
    rich_config,
    rich_text,
)

HERE = Path(__file__).parent
UPDATE = "MGW_UPDATE_GOLDEN"


def _verified_by_envoy() -> GatewayConfig:
    return load.load(rich_text().replace("auth:\n", "auth:\n  verified_by: envoy\n", 1), ENVIRONMENT)[1]


def _every_secret(config: GatewayConfig) -> EnvoyKeys:
    return EnvoyKeys(frozenset(held(provider) for provider in config.auth.providers))


CASES: dict[str, tuple[GatewayConfig, Topology, EnvoyKeys]] = {
    "default": (default_config(), TOPOLOGY, NO_KEYS),
    "rich": (rich_config(), WIDE_TOPOLOGY, NO_KEYS),
    "verified-by-envoy": (_verified_by_envoy(), TOPOLOGY, _every_secret(_verified_by_envoy())),
}


def readable(snapshot: Snapshot, type_url: str) -> dict[str, Any]:
    """The resources of a type as JSON values by name, with scripts by the names of their files."""
    return {
        name: _without_scripts(protos.message_to_dict(protos.Any.FromString(resource)))
        for name, resource in snapshot.resources[type_url].items()
    }


def _without_scripts(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {key: _without_scripts(child) for key, child in value.items()}
    if isinstance(value, list):
        return [_without_scripts(child) for child in value]
    if isinstance(value, str) and "\n" in value:
        for script in resources.files("controlplane.translate").joinpath("lua").iterdir():
            if script.name.endswith(".lua"):
                value = value.replace(script.read_text(encoding="utf-8"), f"<{script.name}>\n")
        return value.splitlines()
    return value


FILES = [(name, type_url) for name in ("default", "rich") for type_url in ORDER]
FILES += [("verified-by-envoy", type_url) for type_url in (LISTENER, ROUTE)]  # the others are as without it


@pytest.mark.parametrize(("name", "type_url"), FILES, ids=short)
def test_translation_is_as_reviewed(name: str, type_url: str) -> None:
    """Each type of each configuration is what its golden file says."""
    config, topology, keys = CASES[name]
    path = HERE / name / f"{short(type_url)}.json"

    found = readable(assemble.snapshot(config, topology, keys=keys), type_url)

    if os.environ.get(UPDATE):
        path.parent.mkdir(exist_ok=True)
        path.write_text(json.dumps(found, indent=1, sort_keys=True, ensure_ascii=False) + "\n", encoding="utf-8")
    assert found == json.loads(path.read_text(encoding="utf-8")), f"if this is meant, run with {UPDATE}=1"


def test_no_golden_file_is_left_over() -> None:
    """Every file belongs to a case."""
    expected = {HERE / name / f"{short(type_url)}.json" for name, type_url in FILES}

    assert set(HERE.rglob("*.json")) == expected


@pytest.mark.parametrize("name", CASES)
async def test_envoy_accepts_it(name: str) -> None:
    """The pinned Envoy would run what the golden files say."""
    config, topology, _ = CASES[name]
    bootstrap = assemble.static_bootstrap(config, topology)

    assert await envoy_validate.judge(envoy_validate.find(os.environ), bootstrap) is None


PROGRAM = """
import hashlib
from controlplane.translate import assemble
from tests.support.configs import TOPOLOGY, WIDE_TOPOLOGY, default_config, rich_config
for config, topology in ((default_config(), TOPOLOGY), (rich_config(), WIDE_TOPOLOGY)):
    snapshot = assemble.snapshot(config, topology)
    for type_url, held in snapshot.resources.items():
        print(type_url, snapshot.version(type_url), list(held), hashlib.sha256(b"".join(held.values())).hexdigest())
"""


def test_every_process_tells_the_same() -> None:
    """Equal configuration gives byte-equal resources and versions, however the process hashes."""
    runs = [
        subprocess.Popen(
            [sys.executable, "-c", PROGRAM],
            cwd=ROOT,
            env=os.environ | {"PYTHONHASHSEED": seed},
            stdout=subprocess.PIPE,
            text=True,
        )
        for seed in ("1", "4242")
    ]
    first, second = [run.communicate()[0] for run in runs]

    assert [run.returncode for run in runs] == [0, 0]
    assert first.count("\n") == 2 * len(ORDER)
    assert first == second


def test_equal_configurations_are_told_apart_by_nothing() -> None:
    """The order of routes and of tiers in the document means nothing to Envoy or to the limiter."""
    config, topology, _ = CASES["rich"]
    turned = config.model_copy(
        update={
            "routes": config.routes[::-1],
            "limits": config.limits.model_copy(update={"tiers": dict(reversed(config.limits.tiers.items()))}),
        }
    )

    assert assemble.snapshot(turned, topology).versions == assemble.snapshot(config, topology).versions
