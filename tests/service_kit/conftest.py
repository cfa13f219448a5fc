"""Fixtures of the kit's tests."""

from __future__ import annotations

from tests.support.key_source import key_source

__all__ = ["key_source"]
