"""The command: ``ops/bench/run [GROUP…] [--rounds N] [--json FILE] [--slow]``."""

from __future__ import annotations

import argparse
import dataclasses
import json
import platform
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import ops.bench as package
from ops.bench import auctions, beside, crash, drain, many, polls, room, runs, waits
from ops.bench.figures import Figure, as_json, table
from ops.bench.size import FULL, TINY, Size

__all__ = ["GROUPS", "main"]

#: What can be measured, in the order in which it is.
GROUPS: dict[str, Callable[[Size, Callable[[str], None]], list[Figure]]] = {
    "throughput": drain.measure,
    "enqueue": waits.enqueueing,
    "latency": waits.latency,
    "steady": waits.steady,
    "memory": room.memory,
    "idle": room.idle,
    "crash": crash.measure,
    "runs": runs.measure,
    "parked": runs.parked,
    "timers": runs.timers,
    "takeover": runs.takeover,
    "dbos": beside.measure,
    "auctions": auctions.measure,
    "votes": polls.measure,
    "many": many.measure,
    "flat": room.flat,
}
SLOW = frozenset(["many", "flat"])


def spin() -> float:
    """Milliseconds that a fixed piece of Python takes now: how fast this machine is just before a group."""
    began = time.perf_counter()
    sum(range(1_000_000))
    return (time.perf_counter() - began) * 1000


def main(argv: Sequence[str] | None = None) -> int:
    """Measure and print; 1 when a figure misses its target, so that a script can tell."""
    parser = argparse.ArgumentParser(
        prog="ops/bench/run", description=package.__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("groups", nargs="*", metavar="GROUP", help=f"what to measure: {', '.join(GROUPS)}")
    parser.add_argument("--rounds", type=int, metavar="N", help=f"interleaved rounds (default {FULL.rounds})")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the figures there as well")
    parser.add_argument("--slow", action="store_true", help=f"with the slow groups: {', '.join(sorted(SLOW))}")
    parser.add_argument(
        "--tiny", action="store_true", help="a few tasks of everything: shows that it runs, measures nothing"
    )
    chosen = parser.parse_args(argv)
    if unknown := [group for group in chosen.groups if group not in GROUPS]:
        parser.error(f"there is no group {unknown[0]!r}; there are: {', '.join(GROUPS)}")
    if chosen.rounds is not None and chosen.rounds < 1:
        parser.error(f"--rounds {chosen.rounds} is not usable; expected 1 or more")
    size = TINY if chosen.tiny else FULL
    if chosen.rounds is not None:
        size = dataclasses.replace(size, rounds=chosen.rounds)
    names = chosen.groups or [group for group in GROUPS if chosen.slow or group not in SLOW]
    began = time.monotonic()

    def say(line: str) -> None:
        print(f"{time.monotonic() - began:7.1f} s  {line}", file=sys.stderr, flush=True)

    figures, spins = {}, []
    for name in names:
        spins.append(spin())
        figures[name] = GROUPS[name](size, say)
    print(table(figures))
    if chosen.json:
        about = {
            "python": platform.python_version(),
            "machine": platform.machine(),
            "rounds": size.rounds,
            "spin_ms": spins,
        }
        chosen.json.write_text(json.dumps(about | {"figures": as_json(figures)}, indent=2) + "\n", encoding="utf-8")
    return int(any(figure.met is False for group in figures.values() for figure in group))


if __name__ == "__main__":
    sys.exit(main())
