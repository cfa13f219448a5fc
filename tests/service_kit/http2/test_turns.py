"""Turns: what is put off, and in which order it comes."""

from __future__ import annotations

import asyncio
import contextlib

from service_kit.http2.turns import Turns
from tests.support.waiting import next_turn, until


async def test_a_loop_turn_has_so_much_and_no_more() -> None:
    """Others run in between, and all of it is run, in order."""
    turns, order = Turns(1.0, most=2), list[str]()
    for number in range(5):
        turns.later(lambda number=number: order.append(str(number)))  # type: ignore[misc] # mypy sees no default here

    assert len(turns) == 5
    while len(turns):
        await next_turn()
        order.append("|")
    assert "".join(order).replace("||", "|").strip("|") == "01|23|4"


async def test_what_takes_long_has_a_turn_of_its_own() -> None:
    """After work that used up the time, the rest waits."""
    turns, order = Turns(0.0, most=100), list[str]()
    for name in "ab":
        turns.later(lambda name=name: order.append(name))  # type: ignore[misc]
    await next_turn()
    assert order == ["a"]
    await until(lambda: order == ["a", "b"])


async def test_what_fails_takes_nobody_s_turn() -> None:
    """An error is reported to the loop, and the others go on."""
    turns, ran = Turns(1.0, most=100), asyncio.Event()
    reported: list[object] = []
    asyncio.get_running_loop().set_exception_handler(lambda _loop, context: reported.append(context["exception"]))

    def fail() -> None:
        raise ValueError

    turns.later(fail)
    turns.later(ran.set)
    await asyncio.wait_for(ran.wait(), 5)
    assert [type(each) for each in reported] == [ValueError]


async def test_who_gave_up_waiting_is_passed_over() -> None:
    """A task that was cancelled before its turn harms nobody."""
    turns = Turns(1.0, most=100)
    given_up = asyncio.ensure_future(turns.next())
    await next_turn()
    given_up.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await given_up
    await asyncio.wait_for(turns.next(), 5)
