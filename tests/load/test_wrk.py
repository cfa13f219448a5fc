"""wrk's printed report, read."""

from __future__ import annotations

import pytest

from tests.load.wrk import Output, parse

CLEAN = """Running 2s test @ http://127.0.0.1:8080
  1 threads and 64 connections
  Thread Stats   Avg      Stdev     Max   +/- Stdev
    Latency     2.95ms  512.00us  21.04ms   91.10%
    Req/Sec    21.59k   812.22    22.80k    75.00%
  Latency Distribution
     50%  980.00us
     75%    3.02ms
     90%    3.40ms
     99%    1.20s
  43184 requests in 2.00s, 16.14MB read
Requests/sec:  21592.31
Transfer/sec:      8.07MB
"""
TROUBLED = CLEAN.replace(
    "Requests/sec",
    "  Socket errors: connect 1, read 2, write 0, timeout 4\n  Non-2xx or 3xx responses: 12\nRequests/sec",
)


def test_a_clean_report() -> None:
    """Rates as printed, latencies in milliseconds whatever unit wrk chose."""
    assert parse(CLEAN) == Output(43184, 21592.31, p50=0.98, p99=1200.0, refused=0, broken=0)


def test_refusals_and_broken_connections_are_told_apart() -> None:
    """A storm wants refusals; a broken connection is an error everywhere."""
    output = parse(TROUBLED)

    assert (output.refused, output.broken, output.errors) == (12, 7, 19)


def test_a_report_that_lacks_a_line_is_refused() -> None:
    """No figure is made up where wrk said nothing."""
    with pytest.raises(ValueError, match="99%"):
        parse(CLEAN.replace("99%", "98%"))
