"""What every Envoy and service was told, and what it said to that."""

from __future__ import annotations

from fastapi import APIRouter, Depends, Request

from controlplane.api.auth import Role, require
from controlplane.api.openapi import problems
from controlplane.xds.status import NodeRegistry, NodeStatus, TypeStatus

router = APIRouter(prefix="/v1/nodes", tags=["nodes"])


@router.get(
    "",
    dependencies=[Depends(require(Role.VIEWER))],
    summary="Per node and type: sent, acknowledged, rejected",
    operation_id="nodes",
    responses=problems(401),
)
async def nodes(request: Request) -> dict[str, object]:
    registry: NodeRegistry = request.app.state.registry
    return {"nodes": [_node(node) for node in registry.nodes()]}


def _node(node: NodeStatus) -> dict[str, object]:
    return {
        "id": node.id,
        "cluster": node.cluster,
        "agent": node.version,
        "types": [_type(status) for _, status in sorted(node.types.items())],
    }


def _type(status: TypeStatus) -> dict[str, object]:
    rejected = {"version": status.rejected, "error": status.error} if status.rejected else None
    return {
        "type_url": status.type_url,
        "version_sent": status.version_sent,
        "version_acknowledged": status.version_acknowledged,
        "rejected": rejected,
    }
