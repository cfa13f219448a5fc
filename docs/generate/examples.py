"""An example of every object of the configuration document. A test loads each, and misses none of their keys."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

PEM = """-----BEGIN PUBLIC KEY-----
      MFkwEwYHKoZIzj0CAQYIKoZIzj0DAQcDQgAE78np26btTohevZAP+cEicXUpuGot
      YsCCW0UCJjFT3LjdrbqZ0rdalFx/Lj7t39oAQHNS2D4uFi+8ZzK9fIBS+w==
      -----END PUBLIC KEY-----"""

EXAMPLES: Mapping[str, Sequence[str]] = {
    "GatewayConfig": [
        """\
version: 1
listener: {port: 8080}
auth:
  providers: [{name: platform, algorithms: [HS256], secret: "${JWT_SECRET}"}]
limits:
  tiers:
    anonymous: {rps: 5, rpm: 100, burst: 10}
    free: {rps: 10, rpm: 200, burst: 20}
cors: {allow_origins: ["https://app.example.com"]}
security_headers: {enabled: true}
log: {requests: all}
services:
  - {name: orders, endpoints: [{url: "http://10.0.0.1:8081"}]}
routes:
  - {name: orders, match: {path: "/orders/{id}", methods: [GET]}, service: orders}
"""
    ],
    "Listener": [
        """\
listener:
  host: 0.0.0.0
  port: "${API_GATEWAY_PORT:-8080}"
  trusted_hops: 1             # one load balancer in front
  keep_underscores: false     # X_Real_IP and the like are dropped
  max_connections: 25000
  max_request_bytes: 1048576  # 1 MiB
  max_headers: 100
  max_header_kib: 60
  headers_timeout_seconds: 10
  request_timeout_seconds: none
  http10: false
  health_port: 8090
  http2: {max_concurrent_streams: 128}
""",
        """\
listener:
  trusted_cidrs: [10.0.0.0/8, "2001:db8:1::/48"]
  proxy_protocol: true        # a TCP load balancer that names its clients
""",
    ],
    "Http2": [
        """\
listener:
  http2:
    max_concurrent_streams: 64
    stream_window_bytes: 1048576
    connection_window_bytes: 16777216
"""
    ],
    "Auth": [
        """\
auth:
  verified_by: envoy
  providers: [{name: platform, algorithms: [HS256], secret: "${JWT_SECRET}"}]
  api_key_header: x-api-key
  max_failures_per_minute: 60
  forward_credentials: {authorization: true, api_key: false}
  api_keys: [{name: batch, sha256: "0000000000000000000000000000000000000000000000000000000000000000", subject: batch}]
  revocations: {jti: [stolen-1]}
  decision_cache: {seconds: 5}
"""
    ],
    "ForwardCredentials": [
        """\
auth:
  providers: [{name: platform, algorithms: [HS256], secret: "${JWT_SECRET}"}]
  forward_credentials:
    authorization: false  # services believe X-User-ID, and see no token
    api_key: false
"""
    ],
    "Provider": [
        """\
auth:
  providers:
    - name: idp               # an identity provider that publishes its keys
      algorithms: [RS256, ES256]
      jwks_uri: https://idp.example.com/.well-known/jwks.json
      jwks_refresh_seconds: 30  # a withdrawn key is refused within 35 s
      ca_file: /etc/gateway/idp-ca.pem
      issuer: https://idp.example.com/
      audiences: [gateway]
      leeway_seconds: 5
      claims: {subject: sub, tier: plan}
      default_tier: free
      on_bad_token: refuse
""",
        """\
auth:
  providers:
    - {name: platform, algorithms: [HS256], secret: "${JWT_SECRET}"}
""",
        """\
auth:
  providers:
    - {name: platform, algorithms: [HS256], secret_file: /run/secrets/jwt}
""",
        """\
auth:
  providers:
    - name: platform          # while a secret is rotated
      algorithms: [HS256]
      secrets: [{kid: new, secret: "${JWT_SECRET_NEW}"}, {kid: old, secret: "${JWT_SECRET}"}]
""",
        f"""\
auth:
  providers:
  - name: partner             # one public key
    algorithms: [ES256]
    issuer: partner
    pem: |
      {PEM}
""",
        """\
auth:
  providers:
    - name: partner           # a key set, written here
      algorithms: [ES256]
      issuer: partner
      jwks:
        keys:
          - kty: EC
            crv: P-256
            kid: one
            x: 78np26btTohevZAP-cEicXUpuGotYsCCW0UCJjFT3Lg
            y: 3a26mdK3WpRcfy4-7d_aAEBzUtg-LhYvvGcyvXyAUvs
""",
        """\
auth:
  providers:
    - {name: partner, algorithms: [ES256], issuer: partner, jwks_file: /etc/gateway/partner.json}
""",
    ],
    "SigningSecret": [
        """\
auth:
  providers:
    - name: platform
      algorithms: [HS256]
      secrets: [{kid: new, secret: "${JWT_SECRET_NEW}"}, {kid: old, secret_file: /run/secrets/old-jwt}]
"""
    ],
    "Claims": [
        """\
auth:
  providers:
    - name: platform
      algorithms: [HS256]
      secret: "${JWT_SECRET}"
      claims: {subject: sub, tier: plan, scopes: scope}
"""
    ],
    "ApiKey": [
        """\
auth:
  api_keys:
    - name: nightly-batch
      sha256: "9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08"   # printf %s KEY | sha256sum
      subject: batch
      tier: free
"""
    ],
    "Revocations": [
        """\
auth:
  revocations:
    jti: [3f1c9a, 88d2e0]
    subjects: [{provider: platform, subject: alice, issued_before: 1800000000}]
"""
    ],
    "RevokedSubject": [
        """\
auth:
  revocations:
    subjects:
      - {provider: platform, subject: alice, issued_before: 1800000000}
"""
    ],
    "DecisionCache": [
        """\
auth:
  decision_cache: {enabled: true, seconds: 5, max_entries: 10000}
"""
    ],
    "Limits": [
        """\
limits:
  enforced_by: ratelimit_service
  anonymous_key: client_ip
  ipv4_prefix: 32
  ipv6_prefix: 56             # what each customer of the provider has
  on_store_failure: share
  leases: {enabled: true}
  exempt: {cidrs: [10.0.0.0/8]}
  tiers:
    anonymous: {rps: 5, rpm: 100, burst: 10}
    free: {rps: 10, rpm: 200, burst: 20}
  global:
    - {name: everything, rps: 5000, rpm: 100000, burst: 10000}
"""
    ],
    "Exempt": [
        """\
limits:
  exempt: {cidrs: [10.0.0.0/8, "2001:db8::/32"], callers: [platform/nightly-job, apikey/monitoring]}
"""
    ],
    "Leases": [
        """\
limits:
  leases: {enabled: false}
"""
    ],
    "Limit": [
        """\
limits:
  tiers:
    anonymous: {rps: 5, rpm: 100, burst: 10}
    free: {rps: 10, rpm: 200, burst: 20}
    gold: {rps: 100, rpm: 2000, burst: 200}
"""
    ],
    "Unlimited": [
        """\
limits:
  tiers:
    anonymous: {rps: 0.2, rpm: 10, burst: 5}
    free: {rps: 10, rpm: 200, burst: 20}
    staff: {unlimited: true}
""",
        """\
routes:
  - name: order
    match: {path: "/orders/{id}", methods: [GET]}
    service: orders
    limits: {unlimited: true}
""",
    ],
    "GlobalLimit": [
        """\
limits:
  global:
    - {name: orders-service, service: orders, rps: 200, rpm: 6000, burst: 400}
    - {name: trial, routes: [orders], rps: 50, rpm: 1000, burst: 100, shadow: true, counter: trial-2}
"""
    ],
    "Cors": [
        """\
cors:
  allow_origins: ["https://app.example.com", "https://*.example.org"]
  allow_methods: [GET, POST]
  allow_headers: [authorization, content-type]
  expose_headers: [x-total-count]
  allow_credentials: true
  max_age_seconds: 3600
"""
    ],
    "SecurityHeaders": [
        """\
security_headers: {enabled: true, frame_options: SAMEORIGIN, referrer_policy: strict-origin}
"""
    ],
    "Log": [
        """\
log: {requests: failed, query: masked, mask_parameters: [customer_number]}
"""
    ],
    "Service": [
        """\
services:
  - name: orders
    endpoints: [{url: "http://10.0.0.1:8081"}, {url: "http://10.0.0.2:8081"}]
    timeout_seconds: 10
    connect_timeout_seconds: 2
    pool: {max_connections: 100}
    breaker: {failures: 10}
    health_check: {path: /health}
    retries: {attempts: 1}
    slow_start_seconds: 30
    critical: true
"""
    ],
    "Endpoint": [
        """\
services:
  - name: orders
    endpoints: [{url: "http://10.0.0.1:8081", weight: 3}, {url: "http://10.0.0.2:8081", weight: 1}]
"""
    ],
    "Pool": [
        """\
services:
  - name: orders
    endpoints: [{url: "http://10.0.0.1:8081"}]
    pool: {max_connections: 50, idle_timeout_seconds: 30, max_pending_requests: 256}
"""
    ],
    "Breaker": [
        """\
services:
  - name: orders
    endpoints: [{url: "http://10.0.0.1:8081"}]
    breaker: {failures: 20, error_rate_percent: 50, open_seconds: 3, half_open_requests: 1}
"""
    ],
    "HealthCheck": [
        """\
services:
  - name: orders
    endpoints: [{url: "http://10.0.0.1:8081"}, {url: "http://10.0.0.2:8081"}]
    health_check:
      path: /healthz
      steer: true
      interval_seconds: 5
      timeout_seconds: 1
      unhealthy_threshold: 3
      healthy_threshold: 2
      closes_breaker: false
"""
    ],
    "ServiceRetries": [
        """\
services:
  - name: orders
    endpoints: [{url: "http://10.0.0.1:8081"}, {url: "http://10.0.0.2:8081"}]
    retries:
      attempts: 2
      on: [connect-failure, reset, gateway-error]
      per_try_timeout_seconds: 5
      budget_percent: 20
"""
    ],
    "Route": [
        """\
routes:
  - name: order
    match: {path: "/orders/{id}", methods: [GET, PUT]}
    service: orders
    auth: required
    tiers: [free]
    scopes: ["orders:read"]
    claims: {department: sales}
    providers: [platform]
    timeout_seconds: 5
    retries: {attempts: 1}
    buffer_request: true
    max_request_bytes: 65536
    ip: {allow: [10.0.0.0/8]}
    cost: 2
    cost_from_response_header: x-cost
    cost_from_response_status: {"404": 1}
    limits: {rps: 2, rpm: 60, burst: 5}
    tier_limits: {free: {rps: 1, rpm: 30, burst: 2}}
    on_store_failure: closed
    cors: {allow_origins: ["*"], allow_credentials: false}
"""
    ],
    "Ip": [
        """\
routes:
  - name: order
    match: {path: "/orders/{id}", methods: [GET]}
    service: orders
    ip: {allow: [10.0.0.0/8, "2001:db8::/32"], deny: [10.0.0.13]}
"""
    ],
    "Match": [
        """\
routes:
  - {name: order, match: {path: "/orders/{id}", methods: [GET]}, service: orders, auth: optional}
  - {name: files, match: {path: "/files/{rest=**}", methods: [GET, PUT]}, service: orders}
"""
    ],
    "Retries": [
        """\
routes:
  - name: order
    match: {path: "/orders/{id}", methods: [GET]}
    service: orders
    retries: {attempts: 2, on: [connect-failure, 5xx], per_try_timeout_seconds: 1}
"""
    ],
    "RuleLimit": [
        """\
routes:
  - name: order
    match: {path: "/orders/{id}", methods: [GET]}
    service: orders
    limits: {rps: 2, rpm: 60, burst: 5, by: both, shadow: true, counter: orders-2}
"""
    ],
}
