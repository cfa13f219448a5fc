"""gRPC over HTTP/2 (RFC 9113), as much of both as a proxy's side calls need."""

from __future__ import annotations

from service_kit.http2.bounds import Bounds
from service_kit.http2.flow import Allowance
from service_kit.http2.server import Server

__all__ = ["Allowance", "Bounds", "Server"]
