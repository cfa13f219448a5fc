"""Runs a call's handler: messages in, responses out, and whatever it raises as a gRPC status."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import structlog

from service_kit.http2.call import INVALID_ARGUMENT, OK, UNAVAILABLE, UNIMPLEMENTED, UNKNOWN, Call, Context, Status
from service_kit.http2.output import Output
from service_kit.http2.turns import Turns

log = structlog.get_logger()


class Runner:
    """Runs the calls of one connection.

    `fail` ends a call with a status unless it is over already, `consumed` is called for each message that a handler
    takes. A call with more messages than one takes `turns` with all others.
    """

    def __init__(
        self,
        output: Output,
        turns: Turns,
        fail: Callable[[Call, int, str], None],
        consumed: Callable[[Call], None],
    ) -> None:
        self._output = output
        self._turns = turns
        self._fail = fail
        self._consumed = consumed

    async def unary(self, call: Call, method: Any, message: bytes) -> None:
        """A call whose client sends one message."""
        context = Context(lambda response: self._write(call, method, response))
        try:
            request = _deserialized(call, method, message)
            if method.response_streaming:
                await self._stream_out(call, method, method.unary_stream(request, context), context)
            else:
                self._respond(call, method, await method.unary_unary(request, context), context)
        except BaseException as error:
            if not self._ended(call, context, error):
                raise

    async def streaming(self, call: Call, method: Any) -> None:
        """A call whose client streams."""
        context = Context(lambda response: self._write(call, method, response))
        try:
            requests = self._messages(call, method)
            if method.response_streaming:
                await self._stream_out(call, method, method.stream_stream(requests, context), context)
            else:
                self._respond(call, method, await method.stream_unary(requests, context), context)
        except BaseException as error:
            if not self._ended(call, context, error):
                raise

    async def _messages(self, call: Call, method: Any) -> AsyncIterator[Any]:
        assert call.messages is not None
        while (message := await call.messages.get()) is not None:
            self._consumed(call)
            yield _deserialized(call, method, message)
            if not call.messages.empty():
                await self._turns.next()

    def _respond(self, call: Call, method: Any, response: Any, context: Context) -> None:
        if context.status != OK:
            raise Status(context.status, context.details)
        self._output.respond(call, _serialized(method, response))
        self._output.flush_soon()

    async def _stream_out(self, call: Call, method: Any, responses: Any, context: Context) -> None:
        self._output.begin(call)
        if isinstance(responses, Awaitable):
            await responses
        else:
            async for response in responses:
                await self._write(call, method, response)
        self._output.end(call, context.status, context.details)

    async def _write(self, call: Call, method: Any, response: Any) -> None:
        self._output.write_message(call, _serialized(method, response))
        await self._output.drain(call)

    def _ended(self, call: Call, context: Context, error: BaseException) -> bool:
        """Turn what a handler raised into the call's status. False for what is not the handler's to end."""
        if isinstance(error, Status):
            self._fail(call, error.code, str(error))
        elif isinstance(error, NotImplementedError):  # a method that its service does not have, as generated code says
            self._fail(call, UNIMPLEMENTED, context.details or "no such method")
        elif isinstance(error, Exception):
            log.exception("http2.handler_crashed", path=call.path, exc_info=error)
            self._fail(call, UNKNOWN, "internal error")
        else:
            self._fail(call, UNAVAILABLE, "stopped")
            return False
        return True


def _deserialized(call: Call, method: Any, message: bytes) -> Any:
    if not method.request_deserializer:
        return message
    try:
        return method.request_deserializer(message)
    except Exception as error:  # noqa: BLE001 - whatever it raises, the bytes are no message of this method
        log.warning("http2.message_unreadable", path=call.path, bytes=len(message), error=type(error).__name__)
        raise Status(INVALID_ARGUMENT, "the request is no message of this method") from None


def _serialized(method: Any, response: Any) -> bytes:
    message: bytes = method.response_serializer(response) if method.response_serializer else response
    return message
