"""What an execution of a run asks those around it to do."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

__all__ = ["Again", "Effect", "Start", "asked_again"]


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


def asked_again(error: BaseException) -> Again | None:
    """The wish to go on as new: raised as it is, or by tasks of a TaskGroup, which wraps it. Not where something failed as well."""
    while isinstance(error, BaseExceptionGroup) and all(asked_again(one) for one in error.exceptions):
        error = error.exceptions[0]
    return error if isinstance(error, Again) else None
