"""Crashes: an agent that holds a hundred running tasks is killed, and another one is there."""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import Callable

from ops.bench import clients
from ops.bench.figures import Figure
from ops.bench.process import Server
from ops.bench.size import Size

__all__ = ["measure"]


def measure(size: Size, say: Callable[[str], None]) -> list[Figure]:
    """Seconds from SIGKILL until all tasks run again, and what was lost or settled twice."""
    figures = []
    for lease in size.leases:
        say(f"crash: an agent with {size.held} running tasks, lease {lease:g} s")
        seconds, lost, doubled = once(size.held, lease)
        say(f"    all running again after {seconds:.2f} s")
        figures += [
            Figure.at_most(f"all running again, lease {lease:g} s", "s", [seconds], lease + 1),
            Figure.at_most(f"lost, lease {lease:g} s", "tasks", [lost], 0),
            Figure.at_most(f"settled twice, lease {lease:g} s", "tasks", [doubled], 0),
        ]
    return figures


def once(held: int, lease: float) -> tuple[float, int, int]:
    """(seconds until all run again, lost, settled twice)."""
    with Server() as server:
        first = server.child("agent", slots=held, lease=lease).ready()
        second = server.child("agent", slots=held, lease=lease).ready()
        first.say("go")
        ids = asyncio.run(clients.hold(server.url, held))
        began = {first.hear(10.0)[1] for _ in ids}
        assert began == set(ids), "the first agent holds all of them"
        second.say("go")
        first.kill()
        killed = time.monotonic()
        again: set[str] = set()
        while again != set(ids):
            word, id, attempt = second.hear(6 * lease + 10)
            assert (word, attempt) == ("began", 2), f"{id}: attempt {attempt} {word}"
            again.add(id)
        seconds = time.monotonic() - killed
        second.say("release")
        ended = Counter(second.hear(10.0)[1] for _ in ids)
        # Whatever the server still holds is not settled; a settlement acknowledges and deletes in one step.
        end = time.monotonic() + 10
        while server.client.xlen("{mesh}:tasks:hold") and time.monotonic() < end:
            time.sleep(0.01)
        records = asyncio.run(clients.records(server.url, ids))
        lost = sum(state != "succeeded" for state, _ in records)
        doubled = sum(attempt != 2 for _, attempt in records) + sum(times - 1 for times in ended.values())
        return seconds, lost, doubled
