"""Undoing what was done, in reverse order, when the rest cannot be done."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

__all__ = ["Saga"]


class Saga:
    """Steps to undo what was done, run in reverse order if the block is left by an exception."""

    def __init__(self) -> None:
        self._undo: list[Callable[[], Awaitable[Any]]] = []

    def undo(self, step: Callable[..., Awaitable[Any]], *args: Any, **kwargs: Any) -> None:
        """Remember how to undo what has just been done: ``step`` is called as ``step(*args, **kwargs)`` and awaited."""
        self._undo.append(lambda: step(*args, **kwargs))

    async def back(self) -> None:
        """Undo all of it, the last first."""
        while self._undo:
            await self._undo.pop()()
