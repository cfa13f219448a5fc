"""h2spec, the conformance suite for HTTP/2 servers, in its strict form."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import grpc
import pytest

from service_kit.http2 import Server
from tests.support.h2spec import failures

ALLOWED = {
    # RFC 7541, section 4.2: an update must not be larger than what we announced, which is 0.
    "Sends a dynamic table size update": "it sets the table to 4,096 bytes",
    "Sends multiple dynamic table size update": "it sets the table to 4,096 bytes",
}
"""Cases that fail, and why that is right."""


class EveryPath(grpc.GenericRpcHandler):
    """Takes whatever h2spec sends, and has a body to send back."""

    def service(self, handler_call_details: grpc.HandlerCallDetails) -> grpc.RpcMethodHandler[Any, Any] | None:
        async def take(requests: Any, _context: Any) -> bytes:
            async for _ in requests:
                pass
            return b"hello"

        return grpc.stream_unary_rpc_method_handler(take)


@pytest.mark.h2spec
async def test_it_conforms(tmp_path: Path) -> None:
    """Every case passes but those that contradict what our settings announce."""
    server = Server()
    server.add_generic_rpc_handlers([EveryPath()])
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    failed = await failures(f"127.0.0.1:{port}", tmp_path)
    await server.stop(0)

    assert failed == set(ALLOWED), json.dumps(sorted(failed), indent=1)
