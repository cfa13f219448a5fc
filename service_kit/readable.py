"""For grpcio: a request that cannot be parsed is INVALID_ARGUMENT and one log line, as it is with service_kit.http2."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from inspect import isasyncgenfunction
from typing import Any

import grpc
import structlog

log = structlog.get_logger()

UNREADABLE = object()
"""Stands for a request that could not be parsed."""


class ReadableOnly(grpc.GenericRpcHandler):
    """Another handler's methods, which never see a request that cannot be parsed."""

    def __init__(self, inner: grpc.GenericRpcHandler) -> None:
        self._inner = inner

    def service(self, handler_call_details: grpc.HandlerCallDetails) -> grpc.RpcMethodHandler[Any, Any] | None:
        """The other handler's method; None where it has no method of this name."""
        found: Any = self._inner.service(handler_call_details)
        if found is None or found.request_deserializer is None:
            return found  # type: ignore[no-any-return] # grpc's own type
        read = _reader(found.request_deserializer, handler_call_details.method)
        kind = f"{'stream' if found.request_streaming else 'unary'}_{'stream' if found.response_streaming else 'unary'}"
        behaviour = _checked(getattr(found, kind), is_streaming=found.request_streaming)
        checked: grpc.RpcMethodHandler[Any, Any] = found._replace(request_deserializer=read, **{kind: behaviour})
        return checked


def _reader(deserialize: Callable[[bytes], Any], method: str) -> Callable[[bytes], Any]:
    def read(data: bytes) -> Any:
        try:
            return deserialize(data)
        except Exception as error:  # noqa: BLE001 - whatever it raises, the request cannot be parsed
            log.warning("grpc.message_unreadable", path=method, bytes=len(data), error=type(error).__name__)
            return UNREADABLE

    return read


def _checked(behaviour: Any, *, is_streaming: bool) -> Any:
    check = _check_each if is_streaming else _check_one
    if isasyncgenfunction(behaviour):

        async def generate(request: Any, context: Any) -> AsyncIterator[Any]:
            async for response in behaviour(await check(request, context), context):
                yield response

        return generate

    async def respond(request: Any, context: Any) -> Any:
        return await behaviour(await check(request, context), context)

    return respond


async def _check_one(request: Any, context: Any) -> Any:
    if request is UNREADABLE:
        await context.abort(grpc.StatusCode.INVALID_ARGUMENT, "the request is no message of this method")
    return request


async def _check_each(requests: Any, context: Any) -> Any:
    async def checked() -> AsyncIterator[Any]:
        async for request in requests:
            yield await _check_one(request, context)

    return checked()
