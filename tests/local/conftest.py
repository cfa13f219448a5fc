"""Fixtures of the local runner's tests."""

from __future__ import annotations

from tests.cli.conftest import mgw

__all__ = ["mgw"]
