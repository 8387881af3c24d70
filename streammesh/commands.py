"""What an execution of a run asks those around it to do."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

__all__ = ["Again", "Effect", "Start"]


@dataclass(frozen=True, slots=True)
class Effect:
    """What a commit sets in motion: a verb of `run_commit`, the path of the command, the verb's arguments."""

    verb: str
    path: str
    args: tuple[Any, ...] = ()


@dataclass(frozen=True, slots=True)
class Start:
    """A local step that is to run now."""

    path: str
    name: str
    function: Callable[..., Any]
    args: tuple[Any, ...]
    kwargs: dict[str, Any]
    after: int
    retries: int
    once: bool


class Again(BaseException):
    """Ends this execution: the run goes on with a new input and an empty journal."""

    def __init__(self, fields: dict[str, Any]) -> None:
        super().__init__()
        self.fields = fields
