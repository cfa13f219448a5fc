"""What these tests share: a clock, the real judge, and hypothesis at a length that fits a busy machine."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings

from controlplane.config import envoy_validate
from tests.support.clock import FakeClock
from tests.support.key_source import tls_source

__all__ = ["tls_source"]

settings.register_profile("short", max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.register_profile("long", max_examples=2000, deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("long" if os.environ.get("MGW_LONG_TESTS") else "short")


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock()


@pytest.fixture(scope="session")
def envoy_binary() -> Path:
    """The Envoy that judges."""
    return envoy_validate.find(os.environ)


@pytest.fixture
def executable(tmp_path: Path) -> Callable[[str], Path]:
    """A program of a few shell lines, to stand where Envoy does."""

    def make(lines: str) -> Path:
        path = tmp_path / "program"
        path.write_text(f"#!/bin/sh\n{lines}\n")
        path.chmod(0o755)
        return path

    return make
