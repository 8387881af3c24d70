"""`python -m tests.chaos`: a chaos run by hand, with a line for every fault and a report at the end."""

from __future__ import annotations

import argparse
import asyncio
import logging
import shutil
import sys
import tempfile
from dataclasses import fields
from pathlib import Path

from tests.chaos.faults import EVERYTHING, KINDS, ZOMBIES
from tests.chaos.run import Setting, play
from tests.chaos.watch import MUTANTS


def main() -> int:
    known = {one.name: one.default for one in fields(Setting)}
    parser = argparse.ArgumentParser(
        prog="python -m tests.chaos",
        description="Kills, freezes and cuts off agents and their server, and checks every promise afterwards.",
    )
    parser.add_argument("--seed", type=int, default=1, help="decides the tasks and the faults (default: 1)")
    for name, text in (
        ("tasks", "how many tasks"), ("faults", "how many faults"), ("agents", "agent processes at a time"),
        ("slots", "tasks that one runs at once"), ("lease", "seconds of a lease"), ("shards", "shards of the mesh"),
        ("pace", "part of the faults' time over which the load is spread"),
    ):  # fmt: skip
        parser.add_argument(
            f"--{name}", type=type(known[name]), default=known[name], help=f"{text} (default: %(default)s)"
        )
    parser.add_argument("--flavour", choices=["valkey", "redis"], default=known["flavour"], help="the server")
    parser.add_argument("--fsync", choices=["everysec", "always"], default=known["fsync"], help="its appendfsync")
    parser.add_argument(
        "--only", choices=["zombies", *KINDS], help="one kind of faults, or agents that come back too late"
    )
    parser.add_argument("--mutant", choices=sorted(MUTANTS), default="", help="make the agents wrong, to see it found")
    parser.add_argument("--keep", action="store_true", help="keep the histories of a run that passed")
    given = vars(parser.parse_args())
    only, keep = given.pop("only"), given.pop("keep")
    shares = EVERYTHING if not only else ZOMBIES if only == "zombies" else {only: 100}
    folder = Path(tempfile.mkdtemp(prefix="chaos-"))
    loud = sys.stderr.isatty()
    # That the server is away is the point of it.
    logging.getLogger("streammesh").setLevel(logging.CRITICAL)

    def say(line: str) -> None:
        sys.stderr.write(f"\r\x1b[K{line}" if loud else f"{line}\n")
        sys.stderr.flush()

    outcome = asyncio.run(play(Setting(folder=folder, shares=shares, **given), say))
    text = outcome.text()
    if not outcome.violations and not keep:
        shutil.rmtree(folder)
        text = text.replace(str(folder), "removed; --keep keeps them")
    sys.stderr.write("\n" * loud)
    sys.stdout.write(f"{text}\n")
    return 1 if outcome.violations else 0


if __name__ == "__main__":
    sys.exit(main())
