"""The parts of a gateway, from its options."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from controlplane.local.options import Options
from controlplane.local.plan import Part, Plan, Surroundings, fixed_ports, plan, port_names
from controlplane.local.resources import PACKAGES


def a_plan(environment: dict[str, str] | None = None, **options: Any) -> Plan:
    chosen = Options(directory=Path("/run/gw"), config=Path("/etc/gateway.yaml"), **options)
    ports = {name: 20_000 + i for i, name in enumerate(port_names(chosen))}
    around = Surroundings(
        environment=environment or {},
        envoy=Path("/bin/envoy"),
        valkey=Path("/bin/valkey"),
        jwt_secret="s" * 32,
        api_token="token",
        processors=2,
    )
    return plan(chosen, ports, around)


def part(plan: Plan, identity: str) -> Part:
    return next(part for part in plan.parts if part.id == identity)


def test_a_plain_gateway_has_one_of_each() -> None:
    """Without options: Valkey, a control plane, both services and Envoy, and no demo."""
    assert [p.id for p in a_plan().parts] == ["redis-0", "controlplane-0", "authz-0", "ratelimit-0", "envoy-0"]


def test_replicas_know_of_each_other() -> None:
    """Two of each: the control planes are told both services' addresses, the services both control planes'."""
    gateway = a_plan(replicas=dict.fromkeys(("controlplane", "authz", "ratelimit", "envoy"), 2))
    addresses = {name: [p.address for p in gateway.parts if p.name == name] for name in ("controlplane", "authz")}

    env = part(gateway, "controlplane-1").env
    assert env["MGW_AUTHZ_ADDRESSES"] == ",".join(addresses["authz"])
    assert part(gateway, "ratelimit-1").env["MGW_CONTROLPLANE"] == ",".join(addresses["controlplane"])
    assert part(gateway, "ratelimit-1").env["MGW_NODE_ID"] == "ratelimit-1"
    assert len({p.address for p in gateway.parts}) == len(gateway.parts)


def test_secrets_reach_only_those_who_need_them() -> None:
    """The token secret goes to the control plane and authz, in the environment and never in a command line."""
    gateway = a_plan({"JWT_SECRET": "from the user"}, demo=True)

    assert {p.id for p in gateway.parts if "JWT_SECRET" in p.env} == {"controlplane-0", "authz-0"}
    assert {p.id for p in gateway.parts if "MGW_API_TOKEN" in p.env} == {"controlplane-0"}
    assert not any("s" * 32 in word or word == "token" for p in gateway.parts for word in p.argv)
    assert "s" * 32 not in repr(gateway)


@pytest.mark.parametrize(("redis", "url"), [("none", "none"), ("rediss://far:1/2", "rediss://far:1/2")])
def test_redis_elsewhere_or_not_at_all(redis: str, url: str) -> None:
    """A URL or `none` goes to the rate-limit service as it is, and no Valkey is started."""
    gateway = a_plan(redis=redis)

    assert (gateway.redis_url, part(gateway, "ratelimit-0").env["REDIS_URL"]) == (url, url)
    assert not [p for p in gateway.parts if p.name == "redis"]


def test_demo_upstreams_become_the_services_unless_the_user_names_others() -> None:
    """With --demo the configuration's service URLs lead to the demo; a URL that is set stays."""
    gateway = a_plan({"SONA_SERVICE_URL": "http://mine:1"}, demo=True)
    env = part(gateway, "controlplane-0").env

    assert env["DISCOVERY_SERVICE_URL"] == f"http://{part(gateway, 'demo-0').address}"
    assert env["SONA_SERVICE_URL"] == "http://mine:1"
    assert "DISCOVERY_SERVICE_URL" not in part(a_plan(), "controlplane-0").env


def test_the_users_environment_is_passed_on_but_for_what_slows_or_misleads() -> None:
    """Parts see the user's variables; bytecode is written, and modules of the current directory are not ours."""
    env = part(a_plan({"LOG_LEVEL": "debug", "PYTHONDONTWRITEBYTECODE": "1", "PYTHONPATH": "/x"}), "authz-0").env

    assert (env["LOG_LEVEL"], env["PYTHONPATH"], env["PYTHONSAFEPATH"]) == ("debug", f"{PACKAGES}:/x", "1")
    assert "PYTHONDONTWRITEBYTECODE" not in env


def test_a_wrap_goes_before_the_command() -> None:
    """A kind's wrap holds for all of it, a single part's wrap overrules it."""
    gateway = a_plan(replicas={"authz": 2}, wraps={"authz": ("nice", "-n5"), "authz-1": ("time",)})

    assert [part(gateway, f"authz-{i}").argv[:2] for i in (0, 1)] == [
        ("nice", "-n5"),
        ("time", part(gateway, "authz-0").argv[2]),
    ]


def test_every_envoy_listens_at_its_own_port_and_the_first_at_the_given_one() -> None:
    """--port is for the first Envoy; the gateway's URL is the first one's, and can be called."""
    options = Options(directory=Path("/r"), config=Path("/c"), host="0.0.0.0", port=8080)

    assert fixed_ports(options) == {"envoy-0": ("0.0.0.0", 8080)}
    assert a_plan(host="0.0.0.0").gateway.startswith("http://127.0.0.1:")


def test_run_json_lists_what_was_started() -> None:
    """The file has the contract's keys, and only parts that have a pid."""
    gateway = a_plan(demo=True)

    run = gateway.run({"envoy-0": 7, "redis-0": 5})

    assert list(run) == ["gateway", "api", "api_token", "redis_url", "state_dir", "components"]
    envoy = part(gateway, "envoy-0")
    assert [c["name"] for c in run["components"]] == ["redis", "envoy"]
    assert run["components"][1] == {
        "name": "envoy",
        "index": 0,
        "pid": 7,
        "address": envoy.address,
        "admin": envoy.admin,
        "metrics": f"{envoy.admin}/stats/prometheus",
        "log": "/run/gw/log/envoy-0.log",
    }
