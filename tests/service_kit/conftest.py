"""Fixtures of the kit's tests."""

from __future__ import annotations

from tests.authz_service.conftest import eventually

__all__ = ["eventually"]
