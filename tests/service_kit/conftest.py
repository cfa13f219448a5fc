"""Fixtures of the kit's tests."""

from __future__ import annotations

from tests.support.key_source import key_source, tls_source

__all__ = ["key_source", "tls_source"]
