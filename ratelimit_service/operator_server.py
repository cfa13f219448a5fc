"""The operations as a gRPC service, `mgw.limits.v1.Operator`: a Struct in, a Struct out. The control plane calls it."""

from __future__ import annotations

from typing import Any, Protocol

import grpc
import structlog
from google.protobuf.json_format import MessageToDict, ParseDict
from google.protobuf.struct_pb2 import Struct

from ratelimit_service.errors import CountersUnavailable, OperationRejected
from ratelimit_service.operations import Operations, Verb
from ratelimit_service.policy import Plan

SERVICE = "mgw.limits.v1.Operator"
METHODS: dict[str, Verb] = {"Peek": "peek", "Reset": "reset", "Override": "override", "Grant": "grant"}

log = structlog.get_logger()


class OperatorMetrics(Protocol):
    """Counts each operation."""

    def operated(self, verb: str, outcome: str) -> None: ...


class PlanHolder(Protocol):
    """Knows the policy in force."""

    @property
    def plan(self) -> Plan | None: ...


class OperatorServer:
    """Returns the four methods. Until there is a store and a policy, they are UNAVAILABLE."""

    def __init__(self, holder: PlanHolder, metrics: OperatorMetrics, operations: Operations | None = None) -> None:
        self.operations = operations
        self._holder = holder
        self._metrics = metrics

    def handler(self) -> grpc.GenericRpcHandler:
        methods = {
            name: grpc.unary_unary_rpc_method_handler(
                self._method(verb), request_deserializer=Struct.FromString, response_serializer=Struct.SerializeToString
            )
            for name, verb in METHODS.items()
        }
        return grpc.method_handlers_generic_handler(SERVICE, methods)

    def _method(self, verb: Verb) -> Any:
        async def call(request: Struct, context: grpc.aio.ServicerContext[Struct, Struct]) -> Struct:
            try:
                return ParseDict(await self.do(verb, MessageToDict(request)), Struct())
            except OperationRejected as error:
                self._metrics.operated(verb, "refused")
                await context.abort(grpc.StatusCode.INVALID_ARGUMENT, str(error))
            except CountersUnavailable as error:
                self._metrics.operated(verb, "unavailable")
                await context.abort(grpc.StatusCode.UNAVAILABLE, f"the store does not answer: {error}")

        return call

    async def do(self, verb: Verb, values: dict[str, Any]) -> dict[str, Any]:
        """One operation: done, counted, and, where it changes something, logged with its reason."""
        plan = self._holder.plan
        if plan is None or self.operations is None:
            raise CountersUnavailable("starting, without a policy yet")
        done = await self.operations.do(verb, values, plan)
        self._metrics.operated(verb, "done")
        if verb != "peek":
            log.info(f"limits.{verb}", **values)
        return done
