"""Gateways whose callers have leases, one of each kind for each file of tests."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.e2e.leases.busy import the_document
from tests.support.gateway import Gateway


@pytest.fixture(scope="module")
def leasing(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Gateway]:
    """One Envoy and one replica; every test has callers of its own."""
    with Gateway(tmp_path_factory.mktemp("leases") / "run", document=the_document()) as running:
        yield running


@pytest.fixture(scope="module")
def inside(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Gateway]:
    """One whose Envoy verifies tokens itself."""
    document = the_document()
    document["auth"]["verified_by"] = "envoy"
    with Gateway(tmp_path_factory.mktemp("inside") / "run", document=document) as running:
        yield running


@pytest.fixture(scope="module")
def wide(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Gateway]:
    """Two Envoys and two replicas on one store."""
    options = ("--envoy", "2", "--ratelimit", "2")
    with Gateway(tmp_path_factory.mktemp("wide") / "run", *options, document=the_document()) as running:
        yield running


@pytest.fixture(scope="module")
def without(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Gateway]:
    """Leases turned off."""
    document = the_document(leases={"enabled": False})
    with Gateway(tmp_path_factory.mktemp("without") / "run", document=document) as running:
        yield running
