"""Waiting for a condition instead of sleeping: returns as soon as it holds, fails with what was last seen.

    tasks = await eventually(lambda: mesh.unfinished() == 0, timeout=5)
    eventually_sync(lambda: path.exists())

The condition may be plain or (with `eventually`) async. It holds when it returns something true, and that is returned.
It may also assert: an AssertionError means "not yet", and the last one is the cause of the failure. Any other error
ends the wait.
"""

from __future__ import annotations

import asyncio
import inspect
import time
from collections.abc import Awaitable, Callable
from typing import TypeVar, overload

T = TypeVar("T")

INTERVAL = 0.01  # seconds between two looks


@overload
async def eventually(condition: Callable[[], Awaitable[T]], timeout: float = 10.0, what: str = "") -> T: ...
@overload
async def eventually(condition: Callable[[], T], timeout: float = 10.0, what: str = "") -> T: ...
async def eventually(condition: Callable[[], object], timeout: float = 10.0, what: str = "") -> object:
    """Return the condition's first true value; fail when there is none within `timeout` seconds."""
    deadline = time.monotonic() + timeout
    while True:
        value, doubt = None, None
        try:
            outcome = condition()
            value = await outcome if inspect.isawaitable(outcome) else outcome
        except AssertionError as error:
            doubt = error
        if value:
            return value
        if time.monotonic() >= deadline:
            raise _not_within(timeout, what, condition, value, doubt) from doubt
        await asyncio.sleep(INTERVAL)


def eventually_sync(condition: Callable[[], T], timeout: float = 10.0, what: str = "") -> T:
    """The same for tests without an event loop."""
    deadline = time.monotonic() + timeout
    while True:
        value, doubt = None, None
        try:
            value = condition()
        except AssertionError as error:
            doubt = error
        if value:
            return value
        if time.monotonic() >= deadline:
            raise _not_within(timeout, what, condition, value, doubt) from doubt
        time.sleep(INTERVAL)


def _not_within(
    timeout: float, what: str, condition: Callable[[], object], value: object, doubt: AssertionError | None
) -> AssertionError:
    if not what:
        try:
            what = " ".join(inspect.getsource(condition).split())
        except (OSError, TypeError):
            what = repr(condition)
    return AssertionError(f"not within {timeout:g} s: {what}\nlast seen: {doubt if doubt is not None else repr(value)}")
