"""Clusters: the operator's services with their pools and breakers, and our own two services."""

from __future__ import annotations

from collections.abc import Iterator
from urllib.parse import urlsplit

from controlplane import protos
from controlplane.config.model import GatewayConfig, Service
from controlplane.topology import AUTHZ_CLUSTER, HEALTH_CLUSTER, RATELIMIT_CLUSTER, Address, Topology
from controlplane.translate import endpoints, health_checks, retries

Cluster = protos.cluster.Cluster

UNBOUNDED = 1_000_000
"""For caps that must never reject anything. Envoy's own default is 1,024."""

DETECTION_INTERVAL_SECONDS = 0.5
"""How often Envoy looks at error rates and lets an ejected host back."""

HTTP_OPTIONS = "envoy.extensions.upstreams.http.v3.HttpProtocolOptions"


def clusters(config: GatewayConfig, topology: Topology) -> Iterator[protos.cluster.Cluster]:
    """Every cluster that the routes and filters use."""
    yield grpc_cluster(AUTHZ_CLUSTER, topology.authz)
    ratelimit = grpc_cluster(RATELIMIT_CLUSTER, topology.ratelimit)
    if config.limits.enforced_by == "envoy" and len(topology.ratelimit) > 1:
        _take_in_order(ratelimit)
    yield ratelimit
    yield health_cluster(topology)
    for service in config.services:
        yield service_cluster(service, topology.trusted_ca)


def service_cluster(service: Service, trusted_ca: str) -> protos.cluster.Cluster:
    """An operator's service. Its endpoints travel by EDS unless a name has to be resolved."""
    result = Cluster(
        name=service.name,
        connect_timeout=protos.duration(service.connect_timeout_seconds),
        lb_policy=Cluster.LEAST_REQUEST if len(service.endpoints) > 1 else Cluster.ROUND_ROBIN,
        circuit_breakers=_caps(service),
        outlier_detection=_outlier_detection(service),
        common_lb_config=_lb_config(),
        typed_extension_protocol_options={HTTP_OPTIONS: protos.any_of(_http1(service.pool.idle_timeout_seconds))},
    )
    if service.slow_start_seconds is not None and len(service.endpoints) > 1:
        result.least_request_lb_config.slow_start_config.slow_start_window.CopyFrom(
            protos.duration(service.slow_start_seconds)
        )
    if check := health_checks.steering(service):
        health_checks.apply(result, check)
    _locate(result, service)
    parts = urlsplit(service.endpoints[0].url)
    if parts.scheme == "https":
        result.transport_socket.CopyFrom(_tls(parts.hostname or "", trusted_ca))
    return result


def _lb_config() -> Cluster.CommonLbConfig:
    """As `_at_once`, and without panic mode, which would send requests to ejected hosts."""
    result = _at_once()
    result.healthy_panic_threshold.CopyFrom(protos.percent.Percent(value=0))
    return result


def _at_once() -> Cluster.CommonLbConfig:
    """An ejection takes effect at once.

    By default Envoy's workers get it up to a second late if another change came shortly before, such as the end of the
    previous ejection. A breaker that opens again would let everything through for that second.
    """
    return Cluster.CommonLbConfig(update_merge_window=protos.duration(0))


def _locate(result: protos.cluster.Cluster, service: Service) -> None:
    if endpoints.all_numeric(endpoints.addresses(service)):
        result.type = Cluster.EDS
        result.eds_cluster_config.eds_config.CopyFrom(ads())
        return
    result.type = Cluster.STRICT_DNS
    result.dns_lookup_family = Cluster.V4_PREFERRED
    result.load_assignment.CopyFrom(endpoints.service_assignment(service))


def ads() -> protos.config_source.ConfigSource:
    """Resources come on the ADS stream that this one came on."""
    return protos.config_source.ConfigSource(
        ads=protos.config_source.AggregatedConfigSource(), resource_api_version=protos.config_source.ApiVersion.V3
    )


def _caps(service: Service) -> protos.circuit_breaker.CircuitBreakers:
    """At most `max_connections` a host. Further requests wait, up to `max_pending_requests`.

    Neither depends on the number of endpoints, so one more endpoint does not change the cluster: its connections and
    ejections stay.
    """
    thresholds = protos.circuit_breaker.CircuitBreakers.Thresholds(
        max_connections=protos.uint32(UNBOUNDED),
        max_pending_requests=protos.uint32(service.pool.max_pending_requests),
        max_requests=protos.uint32(UNBOUNDED),
        retry_budget=retries.budget(service.retries),
    )
    per_host = protos.circuit_breaker.CircuitBreakers.Thresholds(
        max_connections=protos.uint32(service.pool.max_connections)
    )
    return protos.circuit_breaker.CircuitBreakers(thresholds=[thresholds], per_host_thresholds=[per_host])


def _outlier_detection(service: Service) -> protos.outlier_detection.OutlierDetection:
    """When the breaker opens. By default Envoy never ejects the last host of a cluster; with 100 percent it does."""
    breaker = service.breaker
    return protos.outlier_detection.OutlierDetection(
        consecutive_5xx=protos.uint32(breaker.failures),
        enforcing_consecutive_5xx=protos.uint32(100),
        enforcing_consecutive_gateway_failure=protos.uint32(0),
        enforcing_success_rate=protos.uint32(0),
        failure_percentage_threshold=protos.uint32(breaker.error_rate_percent),
        failure_percentage_minimum_hosts=protos.uint32(1),
        failure_percentage_request_volume=protos.uint32(breaker.failures),
        enforcing_failure_percentage=protos.uint32(100),
        interval=protos.duration(DETECTION_INTERVAL_SECONDS),
        base_ejection_time=protos.duration(breaker.open_seconds),
        max_ejection_time=protos.duration(breaker.open_seconds),
        max_ejection_percent=protos.uint32(100),
        always_eject_one_host=protos.boolean(True),
    )


def _http1(idle_timeout_seconds: float) -> protos.http_protocol_options.HttpProtocolOptions:
    return protos.http_protocol_options.HttpProtocolOptions(
        common_http_protocol_options=protos.protocol.HttpProtocolOptions(
            idle_timeout=protos.duration(idle_timeout_seconds)
        ),
        explicit_http_config=protos.http_protocol_options.HttpProtocolOptions.ExplicitHttpConfig(
            http_protocol_options=protos.protocol.Http1ProtocolOptions()
        ),
    )


def _tls(host: str, trusted_ca: str) -> protos.base.TransportSocket:
    """The certificate must be for the endpoint's own name, or for `host` if the endpoint has none."""
    context = protos.tls.UpstreamTlsContext(
        sni=host,
        auto_host_sni=True,
        auto_sni_san_validation=True,
        common_tls_context=protos.tls.CommonTlsContext(
            validation_context=protos.tls_common.CertificateValidationContext(
                # Not `system_root_certs`: Envoy 1.40 accepts it from xDS and then trusts no authority.
                trusted_ca=protos.base.DataSource(filename=trusted_ca)
            )
        ),
    )
    return protos.base.TransportSocket(name="envoy.transport_sockets.tls", typed_config=protos.any_of(context))


def grpc_cluster(name: str, replicas: tuple[Address, ...]) -> protos.cluster.Cluster:
    """One of our services: HTTP/2. An unreachable replica is skipped at once, but never the last one."""
    options = protos.http_protocol_options.HttpProtocolOptions(
        explicit_http_config=protos.http_protocol_options.HttpProtocolOptions.ExplicitHttpConfig(
            http2_protocol_options=protos.protocol.Http2ProtocolOptions(
                connection_keepalive=protos.protocol.KeepaliveSettings(
                    interval=protos.duration(5), timeout=protos.duration(2)
                )
            )
        )
    )
    result = internal_cluster(name, replicas)
    result.typed_extension_protocol_options[HTTP_OPTIONS].CopyFrom(protos.any_of(options))
    return result


def _take_in_order(cluster: protos.cluster.Cluster) -> None:
    """All Envoys use the first replica that is healthy: one replica has to see all who spend a quota to split it.

    Envoy checks the replicas' health: it opens a stream only every few seconds, too seldom to notice by failures.
    """
    members = list(cluster.load_assignment.endpoints[0].lb_endpoints)
    del cluster.load_assignment.endpoints[:]
    for priority, member in enumerate(members):
        cluster.load_assignment.endpoints.add(priority=priority, lb_endpoints=[member])
    cluster.ClearField("outlier_detection")
    cluster.health_checks.add(
        timeout=protos.duration(0.5),
        interval=protos.duration(1),
        no_traffic_interval=protos.duration(1),
        unhealthy_threshold=protos.uint32(1),
        healthy_threshold=protos.uint32(1),
        grpc_health_check=protos.health_check.HealthCheck.GrpcHealthCheck(),
    )


def health_cluster(topology: Topology) -> protos.cluster.Cluster:
    """The control planes' HTTP side."""
    result = internal_cluster(HEALTH_CLUSTER, topology.health)
    result.typed_extension_protocol_options[HTTP_OPTIONS].CopyFrom(protos.any_of(_http1(60)))
    return result


def internal_cluster(name: str, replicas: tuple[Address, ...]) -> protos.cluster.Cluster:
    """What all clusters of our own services have in common."""
    result = Cluster(
        name=name,
        type=Cluster.STATIC if endpoints.all_numeric(replicas) else Cluster.STRICT_DNS,
        connect_timeout=protos.duration(0.15),
        load_assignment=endpoints.load_assignment(name, ((replica, 1) for replica in replicas)),
        circuit_breakers=protos.circuit_breaker.CircuitBreakers(
            thresholds=[
                protos.circuit_breaker.CircuitBreakers.Thresholds(
                    max_connections=protos.uint32(UNBOUNDED),
                    max_pending_requests=protos.uint32(UNBOUNDED),
                    max_requests=protos.uint32(UNBOUNDED),
                    max_retries=protos.uint32(UNBOUNDED),
                )
            ]
        ),
    )
    if len(replicas) > 1:
        result.outlier_detection.CopyFrom(_skip_dead_replicas())
        result.common_lb_config.CopyFrom(_at_once())
    return result


def _skip_dead_replicas() -> protos.outlier_detection.OutlierDetection:
    """Ejects a replica that fails for a second, but never all of them (Envoy's panic mode stays on)."""
    return protos.outlier_detection.OutlierDetection(
        consecutive_5xx=protos.uint32(2),
        interval=protos.duration(DETECTION_INTERVAL_SECONDS),
        base_ejection_time=protos.duration(1),
        max_ejection_time=protos.duration(1),
        max_ejection_percent=protos.uint32(100),
        enforcing_success_rate=protos.uint32(0),
        enforcing_consecutive_gateway_failure=protos.uint32(0),
    )
