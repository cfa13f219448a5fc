"""request_filter.lua: what becomes of a request before any other filter, and of its response after all of them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pytest

from controlplane.translate import masking
from controlplane.translate.headers import Header
from controlplane.translate.lua_literal import Literal
from tests.lua.support.envoy import Stream
from tests.lua.support.worker import Worker
from tests.lua.test_leases import TERMS
from tests.support.configs import a_config
from tests.support.paths import NORMALISED, REJECTED, UNCHANGED

CONFIG: dict[str, Literal] = {
    "api_key_header": "x-api-key",
    "verified_here": False,
    "in_quotas": False,
    "ipv4_prefix": 32,
    "ipv6_prefix": 64,
    "cache_seconds": 5,
    "cache_entries": 100,
    **masking.constants(a_config()),
}
SETTINGS = {"auth": "required", "max_body": "100", "policy": "e1/r", "epoch": "e1", "limits": "n1/"}
OPTIONAL = SETTINGS | {"auth": "optional"}
SAID = {"subject": "u1", "tier": "pro", "caller": "idp/u1", "until": 2000.0, "epoch": "e1"}
TOKEN = {"authorization": "Bearer a"}


def a_worker(left_out: frozenset[str] = frozenset(), **changes: Any) -> Worker:
    return Worker("request_filter", CONFIG | changes, left_out)


def asked(
    worker: Worker, headers: Mapping[str, str], settings: Mapping[str, str] | None = SETTINGS, **more: Any
) -> Stream:
    """A request to `/a` unless the headers say otherwise."""
    return worker.request(worker.stream({":path": "/a", ":method": "GET"} | dict(headers), settings, **more))


def introduced(worker: Worker) -> Worker:
    """The worker, after authz allowed a request with TOKEN."""
    worker.response(asked(worker, TOKEN), ext_authz=SAID)
    return worker


class TestPaths:
    """One spelling for all filters and the upstream."""

    @pytest.mark.parametrize("path", UNCHANGED)
    def test_a_plain_path(self, path: str) -> None:
        """It stays as it is, and the route is not looked up again."""
        found = asked(a_worker(), {":path": path})

        assert (found.request.values[":path"], found.route_cache_cleared) == (path, False)

    @pytest.mark.parametrize(
        "path", ["/a", "/a?b=1", "/a?token=x", "/eyJa.eyJb.c", "/a/../b", "/a%2fb", "/" + "a" * 200]
    )
    def test_a_path_that_comes_again(self, path: str) -> None:
        """What was found out of usual paths is kept; the second request has the same done to it as the first."""
        worker = a_worker()
        first, second = asked(worker, {":path": path}), asked(worker, {":path": path})

        assert first.request.values == second.request.values
        assert first.dynamic == second.dynamic

    def test_paths_that_never_repeat(self) -> None:
        """They cost no more memory than a bounded number of them, and none is taken for another."""
        worker = a_worker()
        for number in range(5000):
            assert asked(worker, {":path": f"/{number}"}).request.values[":path"] == f"/{number}"

    @pytest.mark.parametrize(("path", "result"), NORMALISED)
    def test_another_spelling(self, path: str, result: str) -> None:
        """The route is that of the normal form; the query is not touched."""
        found = asked(a_worker(), {":path": path})

        assert (found.request.values[":path"], found.route_cache_cleared) == (result, True)

    @pytest.mark.parametrize("path", REJECTED)
    def test_a_path_that_hides_something(self, path: str) -> None:
        """It is marked for the first route, which makes it a 400, and nobody is asked who calls."""
        found = asked(introduced(a_worker()), {":path": path} | TOKEN)

        assert (found.request.values["x-mgw-bad-request"], found.route_cache_cleared) == ("path", True)
        assert "x-user-id" not in found.request.values

    def test_connect(self) -> None:
        """A request without a path is answered at once."""
        worker = a_worker()
        found = worker.request(worker.stream({":method": "CONNECT"}))

        assert found.sent == ({":status": "400"}, "")

    @pytest.mark.parametrize(
        ("path", "logged"),
        [
            ("/a", {}),
            ("/a?", {}),
            ("/a?b=1", {"query": "b=1"}),
            ("/a?token=x", {"query": "token=***"}),
            ("/eyJa.eyJb.c?d", {"path": "/***", "query": "d"}),
            ("/a/../eyJa%2eeyJb.c", {"path": "/a/../***"}),
            ("/a;access_%74oken=x/b", {"path": "/a;access_token=***/b"}),
            ("/%2f?token=x", {"query": "token=***"}),
            ("/%2f;token=x", {"path": "/%2F;token=***"}),
        ],
    )
    def test_what_the_log_is_told(self, path: str, logged: dict[str, str]) -> None:
        """The query, and the path if it may hold a token, both without one."""
        assert asked(a_worker(), {":path": path}).dynamic.get("mgw", {}) == logged

    def test_what_the_log_is_told_of_a_request_with_too_many_headers(self) -> None:
        """The same: nothing is rejected before the log knows what it may show."""
        found = asked(a_worker(), {"x-mgw-unfit": "fields", ":path": "/eyJa.eyJb.c?token=x"})

        assert found.request.values[Header.ABORT] == "431"
        assert found.dynamic["mgw"] == {"path": "/***", "query": "token=***"}

    @pytest.mark.parametrize(
        ("query", "logged"),
        [
            ("none", {"path": "/***"}),
            ("full", {"path": "/***", "query": "token=a%20b%C3%A9"}),
            ("masked", {"path": "/***", "query": "token=***"}),
        ],
    )
    def test_how_much_of_a_query_the_log_is_told(self, query: str, logged: dict[str, str]) -> None:
        """As much as the document says; of a path never a token."""
        found = asked(a_worker(query=query), {":path": "/eyJa.eyJb.c?token=a%20b\xc3\xa9"})

        assert found.dynamic["mgw"] == logged


class TestCallers:
    """Who calls, as far as this worker knows."""

    def test_a_token_that_is_not_known(self) -> None:
        """Nothing is said of its caller, so authz is asked."""
        found = asked(a_worker(), TOKEN)

        assert {"x-user-id", "x-user-issuer", "x-mgw-identity"}.isdisjoint(found.request.values)

    @pytest.mark.parametrize(
        ("remote", "client"),
        [
            ("192.0.2.7:4711", "192.0.2.7"),
            ("[2001:db8::7]:4711", "2001:db8::7"),
            ("[::ffff:192.0.2.7]:4711", "::ffff:192.0.2.7"),
            ("/run/gateway.sock", "/run/gateway.sock"),
        ],
    )
    @pytest.mark.parametrize("more", [{}, TOKEN])
    def test_an_api_key(self, remote: str, client: str, more: dict[str, str]) -> None:
        """authz is asked, and told whose wrong keys to count; without a key, or where nobody is asked, it is not."""
        key = {"x-api-key": "k", **more}
        found = asked(introduced(a_worker()), key, address=remote)

        assert found.request.values["x-mgw-address"] == client
        assert "x-mgw-identity" not in found.request.values
        assert "x-mgw-address" not in asked(a_worker(), more, address=remote).request.values
        assert "x-mgw-address" not in asked(a_worker(), key, {}, address=remote).request.values

    def test_a_token_that_authz_allowed_a_moment_ago(self) -> None:
        """Its caller is set, and authz is not asked for five seconds."""
        worker = introduced(a_worker())
        known, later = asked(worker, TOKEN, now=1004.9), asked(worker, TOKEN, now=1005)

        assert known.request.values["x-mgw-identity"] == "known"
        assert (known.request.values["x-user-id"], known.request.values["x-user-tier"]) == ("u1", "pro")
        assert known.dynamic["envoy.filters.http.ext_authz"] == {"tier": "pro", "caller": "idp/u1"}
        assert "x-mgw-identity" not in later.request.values

    @pytest.mark.parametrize(
        ("headers", "settings"),
        [
            (TOKEN | {"x-api-key": "k"}, SETTINGS),
            ({"authorization": "Bearer b"}, SETTINGS),
            (TOKEN, SETTINGS | {"policy": "e1/other"}),
            (TOKEN, {"counter": "r"}),
            (TOKEN, None),
        ],
        ids=["an API key", "another token", "a route that asks more", "auth: none", "health"],
    )
    def test_who_is_not_known(self, headers: dict[str, str], settings: dict[str, str] | None) -> None:
        """A request for which the decision of another one cannot stand."""
        assert "x-mgw-identity" not in asked(introduced(a_worker()), headers, settings).request.values

    @pytest.mark.parametrize(("verified_here", "word"), [(True, "unverified"), (False, None)])
    def test_whom_envoy_may_verify(self, verified_here: bool, word: str | None) -> None:
        """Only where Envoy has keys is a token worth a look of jwt_authn."""
        assert asked(a_worker(verified_here=verified_here), TOKEN).request.values.get("x-mgw-identity") == word

    @pytest.mark.parametrize(
        ("verified_here", "anonymous", "word"), [(True, True, "known"), (True, False, None), (False, True, None)]
    )
    def test_nobody(self, verified_here: bool, anonymous: bool, word: str | None) -> None:
        """Where no credentials are needed and authz is not asked about tokens, nor is it about none."""
        settings = OPTIONAL | ({"anonymous": "yes"} if anonymous else {})
        found = asked(a_worker(verified_here=verified_here), {}, settings)

        assert found.request.values.get("x-mgw-identity") == word
        assert "x-user-id" not in found.request.values

    def test_without_a_decision_cache(self) -> None:
        """Nothing is kept, and nothing breaks."""
        worker = introduced(a_worker(frozenset({"decision_cache"})))

        assert "x-mgw-identity" not in asked(worker, TOKEN).request.values


def rejected(stream: Stream) -> tuple[str | None, str | None]:
    """The mark and the status of a request that the script ends."""
    return stream.request.values.get("x-mgw-rejected"), stream.request.values.get("x-envoy-fault-abort-request")


class TestRejections:
    """What the headers alone tell."""

    @pytest.mark.parametrize(
        ("headers", "settings", "found"),
        [
            ({}, SETTINGS, ("no_token", "401")),
            ({}, OPTIONAL, (None, None)),
            ({}, None, (None, None)),
            ({"authorization": "Basic eA=="}, SETTINGS, (None, None)),
            ({"x-api-key": "k"}, SETTINGS, (None, None)),
            (TOKEN | {"content-length": "100"}, SETTINGS, (None, None)),
            (TOKEN | {"content-length": "101"}, SETTINGS, ("body", "413")),
            ({"content-length": "99999999999999999999"}, SETTINGS, ("body", "413")),
            ({"content-length": "101"}, {"max_body": "100"}, ("body", "413")),
            ({"content-length": "101"}, None, (None, None)),
        ],
    )
    def test_on_the_headers(
        self, headers: Mapping[str, str], settings: Mapping[str, str] | None, found: tuple[str | None, str | None]
    ) -> None:
        """413 comes before 401. Authz judges every credential, and a route without settings takes what it gets.

        The log's reason is the one that authz would have given.
        """
        stream = asked(a_worker(), headers, settings)

        assert rejected(stream) == found
        reason = {"reason": "no_token"} if found[0] == "no_token" else None
        assert stream.dynamic.get("envoy.filters.http.ext_authz") == reason

    @pytest.mark.parametrize("unfit", ["fields", "path"])
    def test_fields_that_are_unfit_as_a_whole(self, unfit: str) -> None:
        """Envoy has counted them: 431 for too many or too large ones, 400 for others, and nobody is asked who calls."""
        found = asked(introduced(a_worker()), TOKEN | {"x-mgw-unfit": unfit})

        assert rejected(found) == (("fields", "431") if unfit == "fields" else (None, None))
        assert ("x-mgw-bad-request" in found.request.values) is (unfit == "path")
        assert "x-user-id" not in found.request.values


class TestLimits:
    """Who pays, and how the response tells it."""

    def leasing(self) -> Worker:
        """A worker with a lease of four requests for the caller of TOKEN."""
        worker = introduced(a_worker())
        for now in (1000.0, 1000.01):
            found = asked(worker, TOKEN, now=now)
        worker.response(found, TERMS, ratelimit={"lease": "ab 1 4 1 100"})
        return worker

    def test_a_prepaid_request(self) -> None:
        """The service is not asked and not told whom to charge; the response has its headers all the same."""
        worker = self.leasing()
        found = asked(worker, TOKEN, now=1000.02)
        worker.response(found)

        assert found.request.values["x-mgw-prepaid"] == "1"
        assert "envoy.filters.http.ext_authz" not in found.dynamic
        assert found.headers().values["x-ratelimit-remaining"] == "899"

    def test_a_prepaid_request_whose_body_is_too_large(self) -> None:
        """It is rejected by its length, before anything is spent."""
        worker = self.leasing()
        large = asked(worker, TOKEN | {"content-length": "101"}, now=1000.02)
        paid = [asked(worker, TOKEN, now=1000.03).request.values.get("x-mgw-prepaid") for _ in range(3)]

        assert rejected(large) == ("body", "413")
        assert "x-mgw-prepaid" not in large.request.values
        assert paid == ["1", "1", None]

    def test_a_preflight_spends_nothing(self) -> None:
        """It is answered before the limiter."""
        found = asked(self.leasing(), TOKEN | {":method": "OPTIONS"}, now=1000.02)

        assert "x-mgw-prepaid" not in found.request.values

    def test_a_caller_over_its_limit(self) -> None:
        """Its next request is marked for the 429, which has the headers of the first one."""
        worker = introduced(a_worker())
        for now in (1000.0, 1000.01):
            found = asked(worker, TOKEN, now=now)
        worker.response(found, TERMS, ratelimit={"over_limit_ms": 5000, "rule": "minute"})
        again = asked(worker, TOKEN, now=1000.02)
        worker.response(again)

        assert again.request.values["x-mgw-over-limit"] == "5"
        assert again.headers().values["ratelimit"] == '"minute";r=0;t=5'

    def test_a_network_has_leases_of_its_own(self) -> None:
        """Whatever the address in it, and the port; another network has none of them."""
        worker, settings = a_worker(), OPTIONAL | {"anonymous": "yes"}
        for now in (1000.0, 1000.01):
            found = asked(worker, {}, settings, now=now, address="[fd00::1]:5")
        worker.response(found, TERMS, ratelimit={"lease": "ab 1 4 1 100"})
        same, other = (
            asked(worker, {}, settings, now=1000.02, address=each) for each in ("[fd00::2]:6", "[fd00:0:0:1::1]:5")
        )

        assert same.request.values.get("x-mgw-prepaid") == "1"
        assert "x-mgw-prepaid" not in other.request.values

    @pytest.mark.parametrize(
        ("headers", "settings", "is_named"),
        [
            ({}, OPTIONAL | {"anonymous": "yes"}, True),
            ({}, OPTIONAL, True),
            ({}, {"max_body": "100"}, True),
            ({}, SETTINGS, False),
            (TOKEN, SETTINGS, True),
            ({"x-api-key": "k"}, SETTINGS, True),
            ({}, None, False),
        ],
        ids=["anonymous", "conditions", "auth: none", "refused", "not known yet", "an API key", "not limited"],
    )
    def test_whoever_may_be_anonymous_has_a_network(
        self, headers: Mapping[str, str], settings: Mapping[str, str] | None, is_named: bool
    ) -> None:
        """For the limiters, if nobody verifies the caller."""
        found = asked(a_worker(), headers, settings, address="[2001:db8:1:2:3::4]:5")

        assert found.request.values.get("x-mgw-network") == ("2001:db8:1:2:0:0:0:0" if is_named else None)

    def test_a_known_caller_has_none(self) -> None:
        """It is charged by its name."""
        worker = introduced(a_worker())

        assert "x-mgw-network" not in asked(worker, TOKEN).request.values

    def test_quotas(self) -> None:
        """Envoy's own filter reads the caller, and the route's counter if there is one, from headers."""
        worker = introduced(a_worker(frozenset({"leases"}), in_quotas=True))
        found = asked(worker, TOKEN, SETTINGS | {"counter": "r"})

        assert found.request.values["x-mgw-caller"] == "pro idp/u1"
        assert found.request.values["x-mgw-counter"] == "r"
        assert found.dynamic == {}


class TestResponses:
    """What an upstream may not send on."""

    def test_what_connection_names(self) -> None:
        """Such headers are for this hop alone; framing and pseudo-headers stay."""
        worker = a_worker()
        headers = {"connection": "X-A, close,x-b,Content-Length, Transfer-Encoding, :status", ":status": "200"}
        sent = {"x-a": "1", "x-b": "2", "x-c": "3", "content-length": "0", "transfer-encoding": "chunked"}
        found = worker.response(asked(worker, {}), headers | sent)

        assert found.headers().values.keys() & sent.keys() == {"x-c", "content-length", "transfer-encoding"}
        assert found.headers().values[":status"] == "200"

    def test_a_response_to_a_request_that_left_nothing(self) -> None:
        """It changes nothing of what others left."""
        worker = a_worker()
        under_way = asked(worker, TOKEN)
        worker.response(asked(worker, {}), {"x-a": "1"})
        worker.response(under_way, ext_authz=SAID)

        assert asked(worker, TOKEN).request.values["x-mgw-identity"] == "known"
