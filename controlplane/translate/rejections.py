"""What the request filter rejects on the headers alone, and how Envoy ends it.

The script cannot answer itself: its answer would pass by the CORS filter, and a browser could not read it. It leaves a
mark and a status, and the fault filter behind CORS ends the request (`FaultAbort.header_abort`). The route stays as it
is, so the log names it. `local_replies` gives each mark its error.
"""

from __future__ import annotations

from controlplane import protos
from controlplane.translate.headers import Header


def reject() -> protos.fault_filter.HTTPFault:
    """Ends a request that has a mark, with the status that stands beside it."""
    abort = protos.fault_filter.FaultAbort(
        header_abort=protos.fault_filter.FaultAbort.HeaderAbort(),
        percentage=protos.percent.FractionalPercent(numerator=100),
    )
    return protos.fault_filter.HTTPFault(abort=abort, headers=[marked()])


def marked(mark: str | None = None) -> protos.route_components.HeaderMatcher:
    """Whether the request has this mark, or any."""
    if mark is None:
        return protos.route_components.HeaderMatcher(name=Header.REJECTED, present_match=True)
    exact = protos.string_matcher.StringMatcher(exact=mark)
    return protos.route_components.HeaderMatcher(name=Header.REJECTED, string_match=exact)
