"""What can go wrong here: the store's fault, the policy's fault, or the start's.

RatelimitError
├── CountersUnavailable   the store could not count: decide without it
├── PolicyRejected        the policy cannot be used: the last good one stays
└── OperationRejected     what the operator asked of a caller's counters does not fit

A process that cannot start raises service_kit.errors.StartFailed.
"""

from __future__ import annotations


class RatelimitError(Exception):
    """The base of this package's errors."""


class CountersUnavailable(RatelimitError):
    """The store gave no usable reply; `on_store_failure` says how to decide."""


class PolicyRejected(RatelimitError):
    """The policy cannot be used; the message is for the operator."""


class OperationRejected(RatelimitError):
    """The operator's request does not fit; the message is for the operator."""
