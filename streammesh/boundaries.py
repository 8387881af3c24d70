"""What one flow may do: how far it may reach, how much it may send. Enforced in the scripts that publish, never in silence.

A flow is everything that one task, run or message caused, directly or not: it has one correlation id. Whoever would take it
beyond a boundary gets a typed error; the events tell of it once for each flow and guard, `{mesh}:refused` counts every time.
"""

from __future__ import annotations

from dataclasses import dataclass

from streammesh.errors import BoundaryError, BudgetExceeded, Cycle, DeadlinePassed, HopLimit
from streammesh.record import Lineage

__all__ = ["Boundaries", "refusal", "told_refusal"]


@dataclass(slots=True)
class Boundaries:
    """The boundaries that a client holds flows to; set those of ``mesh.boundaries``.

    ``hops``: messages and tasks in a row, each caused by the one before. ``messages``: in one flow within an hour (a flow that is
    silent for an hour begins to count anew). ``fan_out``: messages that one task or message may cause. ``tasks``: that
    the handlers of one flow may enqueue; counted for each shard. What clients enqueue by themselves is never counted.
    ``mail``: messages that may wait for one agent; whoever would send it one more gets a Backpressure.
    """

    hops: int = 16
    messages: int = 1000
    fan_out: int = 256
    tasks: int = 100_000
    mail: int = 10_000

    def for_message(self) -> str:
        return f"{self.hops} {self.messages} {self.fan_out}"

    def for_task(self) -> str:
        return f"{self.hops} {self.tasks} 0"


def refusal(word: str, what: str, line: Lineage | None) -> Exception:
    """The error for 'refused <guard> <limit>' on ``what`` (such as "message 'news'")."""
    _, guard, limit = word.split(" ", 2)
    flow = f"flow {line.correlation}" if line else "a flow of its own"
    path = f"; it came by {' > '.join(line.via.split())}" if line and line.via else ""
    cure = "wrap what is meant to go on for ever in `with new_flow():`"
    match guard:
        case "hops":
            hops = line.hops + 1 if line else 0
            return HopLimit(
                f"{what} would be hop {hops} of {flow}, and {limit} are allowed{path}; end the chain, or {cure}"
            )
        case "cycle":
            return Cycle(f"{what} was with {limit} before ({flow}{path}); forward it to somebody else, or answer it")
        case "deadline":
            return DeadlinePassed(f"{what} was not sent: the deadline of {flow} has passed{path}")
        case "fan_out":
            return BudgetExceeded(
                f"{what} was not sent: one task or message may cause {limit} messages ({flow}{path}); broadcast, or publish on a topic"
            )
        case _:
            return BudgetExceeded(
                f"{what} was not sent: {flow} has used up its {limit} {guard}{path}; raise mesh.boundaries.{guard}, or {cure}"
            )


def told_refusal(said: str) -> BoundaryError:
    """The error that another agent came to, from its answer '<class> <text>'."""
    name, _, text = said.partition(" ")
    return next((kind for kind in BoundaryError.__subclasses__() if kind.__name__ == name), BoundaryError)(text)
