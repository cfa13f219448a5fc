"""gRPC calls whose messages are bytes, as they are."""

from __future__ import annotations

import grpc
import grpc.aio


def unary(channel: grpc.aio.Channel, method: str) -> grpc.aio.UnaryUnaryMultiCallable[bytes, bytes]:
    """A method with one request and one response."""
    return channel.unary_unary(method)


def stream(channel: grpc.aio.Channel, method: str) -> grpc.aio.StreamStreamMultiCallable[bytes, bytes]:
    """A method with streams both ways."""
    return channel.stream_stream(method)
