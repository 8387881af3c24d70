"""Which of several agents: the strategies of directed requests and tasks, as plain functions over what is known of them.

Of those who are asked, the caller has left out who is not willing. Loads come from memory and are up to some seconds old:
that is why two choices is the default, and least-loaded is for counters that were read for the occasion. On old ones it
sends everybody to the same agent, which is worse than drawing at random.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from hashlib import blake2b
from typing import Protocol, TypeVar

__all__ = ["STRATEGIES", "Choosable", "Chosen", "affine", "least_loaded", "two_choices"]

#: What may be asked for; `pull` is no choice at all: whoever has room takes the task from the queue.
STRATEGIES = ("pull", "two-choices", "round-robin", "affinity", "least-loaded")


class Chosen(str):
    """The id of an agent that was chosen for a task, by its name or a strategy: without room it may choose another one."""

    __slots__ = ()


class Choosable(Protocol):
    """What is asked of a candidate: its id, and the share of its slots in use."""

    @property
    def id(self) -> str: ...

    @property
    def load(self) -> float: ...


_Any = TypeVar("_Any", bound=Choosable)


def two_choices(candidates: Sequence[_Any], rng: random.Random | None = None) -> _Any:
    """The less loaded of two drawn at random; of one, that one."""
    drawn = (rng or random).sample(candidates, min(2, len(candidates)))
    return min(drawn, key=lambda one: one.load)


def least_loaded(candidates: Sequence[_Any]) -> _Any:
    """The least loaded of all, by id where loads are equal. Only for loads read for this very choice."""
    return min(candidates, key=lambda one: (one.load, one.id))


def affine(candidates: Sequence[_Any], key: str) -> _Any:
    """The same one for the same ``key`` as long as it is there: rendezvous hashing, so that a leaver moves its own keys only."""
    return max(candidates, key=lambda one: (blake2b(f"{key} {one.id}".encode(), digest_size=8).digest(), one.id))
