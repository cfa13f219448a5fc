"""What can go wrong in the kit itself.

StartFailed   the process cannot succeed as it was started: one line for the operator, exit status 1
"""

from __future__ import annotations


class StartFailed(Exception):
    """The process cannot start; the message is one line that says what to do."""
