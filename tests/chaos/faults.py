"""Which faults a run suffers, and when: a list that the seed alone decides."""

from __future__ import annotations

import random
from collections.abc import Mapping
from dataclasses import dataclass

__all__ = ["EVERYTHING", "KINDS", "ZOMBIES", "Fault", "schedule"]

#: What can be done, in words for the report.
KINDS = {
    "agent_kill": "SIGKILL of an agent, a new one starts",
    "agent_freeze": "SIGSTOP of an agent for 0.5 to 3 leases",
    "agent_drain": "SIGTERM of an agent, a new one starts",
    "server_kill": "SIGKILL of the server, started again on its data",
    "server_freeze": "SIGSTOP of the server for 0.5 to 3 leases",
    "server_full": "no memory for new work for 0.3 to 1.5 s",
    "capability_pause": "a capability is paused for 0.3 to 1.5 s",
    "client_kill": "CLIENT KILL of all or of half the connections",
    "script_flush": "SCRIPT FLUSH",
    "cut_replies": "answers thrown away, with their connections",
    "tear_requests": "half a request, then the end of the connection",
    "swallow": "nothing passes between an agent and the server for 0.5 to 3 s",
}

#: Shares of the whole. With 40 faults: 12 SIGKILLs of agents or more, 4 of the server or more.
EVERYTHING: Mapping[str, int] = {
    "agent_kill": 32,
    "agent_freeze": 15,
    "agent_drain": 8,
    "server_kill": 12,
    "server_freeze": 5,
    "server_full": 4,
    "capability_pause": 3,
    "client_kill": 7,
    "script_flush": 4,
    "cut_replies": 7,
    "tear_requests": 5,
    "swallow": 5,
}
#: Nothing but agents that come back after their lease: what a fence is for.
ZOMBIES: Mapping[str, int] = {"agent_freeze": 100}


@dataclass(frozen=True, slots=True)
class Fault:
    """One fault: ``gap`` seconds after the one before, on agent ``seat``, with ``size`` from 0 to 1 for how bad it is."""

    gap: float
    kind: str
    seat: int
    size: float


def schedule(seed: int, count: int, seats: int, shares: Mapping[str, int] = EVERYTHING) -> list[Fault]:
    """``count`` faults in the proportions of ``shares``, in an order and with sizes that ``seed`` decides."""
    dice = random.Random(f"faults {seed}")
    whole = sum(shares.values())
    kinds = [kind for kind, share in shares.items() for _ in range(round(count * share / whole))]
    kinds += dice.choices(list(shares), list(shares.values()), k=max(0, count - len(kinds)))
    dice.shuffle(kinds)
    return [Fault(dice.uniform(0.2, 0.7), kind, dice.randrange(seats), dice.random()) for kind in kinds[:count]]
