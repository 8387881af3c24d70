"""How long callers wait: enqueueing, and from the call to its result."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from statistics import quantiles
from typing import Any

from ops.bench import floors
from ops.bench.figures import Figure
from ops.bench.process import Server, quiet
from ops.bench.size import Size

__all__ = ["enqueueing", "latency", "steady"]

Say = Callable[[str], None]


def enqueueing(size: Size, say: Say) -> list[Figure]:
    """Tasks enqueued a second, with nobody at work."""
    rates: dict[str, list[float]] = {"enqueue-many": [], "enqueue": [], "bare-enqueue": []}
    for turn in range(size.rounds):
        for role, values in rates.items():
            say(f"enqueue, round {turn + 1} of {size.rounds}: {role}")
            quiet(size.patience)
            with Server() as server:
                child = server.child(role, count=size.bulk if role == "enqueue-many" else size.enqueue).ready()
                child.say("go")
                values.append(child.hear(120.0))
            say(f"    {values[-1]:,.0f}/s")
    return [
        Figure.at_least("enqueue_many", "tasks/s", rates["enqueue-many"], 40_000),
        Figure.shown("bare, XADD awaited", "/s", rates["bare-enqueue"]),
        Figure.against("enqueue, awaited", "tasks/s", rates["enqueue"], "bare", rates["bare-enqueue"], least=0.6),
    ]


def latency(size: Size, say: Say) -> list[Figure]:
    """Call to result, one at a time, on a mesh that does nothing else."""
    p50: dict[str, list[float]] = {"bare-call": [], "call": []}
    p99: dict[str, list[float]] = {"bare-call": [], "call": []}
    for turn in range(size.rounds):
        for role in ("bare-call", "call"):
            say(f"latency, round {turn + 1} of {size.rounds}: {role}")
            quiet(size.patience)
            took = _answered(role, count=size.calls)
            p50[role].append(_percentile(took, 50))
            p99[role].append(_percentile(took, 99))
            say(f"    p50 {p50[role][-1]:.2f} ms, p99 {p99[role][-1]:.2f} ms")
    return [
        Figure.shown("bare, XADD to reply, p50", "ms", p50["bare-call"]),
        Figure.shown("bare, XADD to reply, p99", "ms", p99["bare-call"]),
        Figure.against("call to result, p50", "ms", p50["call"], "bare", p50["bare-call"], most=1.6),
        Figure.against("call to result, p99", "ms", p99["call"], "p50", p50["call"], most=3.0),
    ]


def steady(size: Size, say: Say) -> list[Figure]:
    """Call to result at a steady rate."""
    p99: dict[str, list[float]] = {"bare-steady": [], "steady": []}
    begun: list[float] = []
    for turn in range(size.rounds):
        for role, values in p99.items():
            say(f"steady, round {turn + 1} of {size.rounds}: {role} at {size.rate:g}/s")
            quiet(size.patience)
            said = _answered(role, count=size.steady, rate=size.rate)
            values.append(_percentile(said["result"], 99))
            if "begun" in said:
                begun.append(_percentile(said["begun"], 99))
            say(f"    p99 {values[-1]:.2f} ms")
    return [
        Figure.shown(f"bare at {size.rate:g}/s, p99", "ms", p99["bare-steady"]),
        Figure.shown(f"call to begin at {size.rate:g}/s, p99", "ms", begun),
        Figure.at_most(
            f"call to result at {size.rate:g}/s, p99", "ms", p99["steady"], 2.5, floor="bare", floors=p99["bare-steady"]
        ),
    ]


def _answered(role: str, **options: Any) -> Any:
    """What a calling child says, with one process that answers it."""
    with Server() as server:
        if role.startswith("bare"):
            asyncio.run(floors.open_queue(server.url))
            answering = server.child("bare-replier", me="one").ready()
        else:
            answering = server.child("agent", slots=32).ready()
        answering.say("go")
        child = server.child(role, **options).ready()
        child.say("go")
        return child.hear(120.0)


def _percentile(values: list[float], percent: int) -> float:
    return quantiles(values, n=100)[percent - 1]
