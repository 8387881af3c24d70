"""One chaos run: a load, a list of faults, and afterwards the truth from the histories and the server.

outcome = await play(Setting(seed=7, tasks=3000, faults=40, folder=folder), say=print)
assert not outcome.violations
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import redis

from streammesh import Mesh
from tests.chaos import faults
from tests.chaos.history import Final, Recorder, read_final, read_history
from tests.chaos.load import Producer, make_load
from tests.chaos.stage import NAMESPACE, Stage
from tests.chaos.verdict import FINAL, Outcome, Played, judge
from tests.chaos.watch import Ledger, mutated

__all__ = ["Setting", "play"]

#: Mean seconds between two faults: the load is spread over that.
GAP = 0.45


@dataclass(frozen=True, slots=True)
class Setting:
    """What is run. ``fsync`` is the server's appendfsync, ``shares`` the proportions of the kinds of faults."""

    folder: Path
    seed: int
    tasks: int = 3000
    faults: int = 40
    flavour: str = "valkey"
    fsync: str = "everysec"
    lease: float = 1.2
    slots: int = 8
    agents: int = 4
    shards: int = 1
    #: The part of the faults' time over which the load is spread: small means a backlog from the start.
    pace: float = 0.9
    shares: Mapping[str, int] = field(default_factory=lambda: faults.EVERYTHING)
    mutant: str = ""

    @property
    def patience(self) -> float:
        """Seconds from the last fault after which everything has to be settled, a backlog of all tasks included."""
        return 15 + 8 * self.lease + self.tasks / 200


async def play(setting: Setting, say: Callable[[str], None] = lambda _: None) -> Outcome:
    """Run it, and return what came of it; the folder keeps all histories, the server's data and every agent's log."""
    began = time.monotonic()
    if setting.mutant:
        # Before anything is started: agents that only crash would prove nothing.
        mutated(setting.mutant)
    items = make_load(setting.seed, setting.tasks, setting.lease)
    plan = faults.schedule(setting.seed, setting.faults, setting.agents, setting.shares)
    stage = Stage(
        setting.folder, flavour=setting.flavour, fsync=setting.fsync, seats=setting.agents, slots=setting.slots,
        lease=setting.lease, shards=setting.shards, seed=setting.seed, mutant=setting.mutant,
    )  # fmt: skip
    async with stage:
        await _everybody_here(stage)
        # Calls give up soon here, because it is the producer that repeats them.
        async with Mesh.connect(stage.producer.url, namespace=NAMESPACE, patience=0.3, name="producer") as mesh:
            rate = setting.tasks / max(1.0, setting.faults * GAP * setting.pace)
            producer = Producer(mesh, Recorder(setting.folder, "producer"), items, rate, setting.seed)
            producing = asyncio.create_task(producer.run())
            try:
                await _suffer(stage, plan, producer, say)
                say(f"calm after {time.monotonic() - began:.1f} s; waiting until all is settled")
                settled_in = await _settled(stage, producing, [item.id for item in items], setting.patience)
            finally:
                producing.cancel()
                await asyncio.gather(producing, return_exceptions=True)
        await stage.gone()
        left = await _left(stage)
        await stage.dismiss()
        final = await asyncio.to_thread(_read_final, stage.server.url, setting.shards)
    events = read_history(setting.folder)
    executions, effects = Ledger(setting.folder).read()
    played = Played(
        setting.folder, setting.seed, dict(stage.done), stage.started, setting.slots, setting.lease,
        time.monotonic() - began, settled_in, stage.surprises, left,
    )  # fmt: skip
    return judge(played, items, events, final, executions, effects)


async def _everybody_here(stage: Stage) -> None:
    async with asyncio.timeout(30):
        while len(await stage.inspector.agents()) < len(stage.seats):
            for seat in stage.seats:
                seat.check()
            await asyncio.sleep(0.05)


async def _suffer(stage: Stage, plan: list[faults.Fault], producer: Producer, say: Callable[[str], None]) -> None:
    """The faults in their order and at their times; they may overlap."""
    async with asyncio.TaskGroup() as group:
        for number, fault in enumerate(plan, 1):
            await asyncio.sleep(fault.gap)
            group.create_task(stage.suffer(fault))
            say(f"{number:>4}/{len(plan)} {fault.kind:<14} on {fault.seat}   accepted {producer.accepted}")
    await stage.calm()


async def _settled(stage: Stage, producing: asyncio.Task[None], ids: list[str], patience: float) -> float | None:
    """Seconds until nothing is open any more, or None when that did not come about within ``patience``."""
    began = time.monotonic()
    store, keys = stage.inspector.store, stage.inspector.keys
    while time.monotonic() - began < patience:
        if producing.done():
            producing.result()
            states = await store.commands([("HGET", keys.task(id), "state") for id in ids])
            ids = [id for id, state in zip(ids, states, strict=True) if state not in FINAL]
            # Children are on nobody's list: the streams say whether there are any left.
            if not ids and not await _left(stage):
                return time.monotonic() - began
        await asyncio.sleep(0.1)
    return None


async def _left(stage: Stage) -> list[str]:
    """Work that still lies in streams or waits for its time, in words."""
    store, keys = stage.inspector.store, stage.inspector.keys
    names: list[str] = []
    cursor = "0"
    while True:
        cursor, some = await store.command("SCAN", cursor, "COUNT", 1000, "TYPE", "stream")
        names += [name for name in some if name.partition("}:")[2].startswith(("tasks:", "inbox:", "mail:"))]
        if cursor == "0":
            break
    lengths = await store.commands([("XLEN", name) for name in names])
    left = [f"{length} entries in {name}" for name, length in zip(names, lengths, strict=True) if length]
    due = await store.commands([("ZCARD", keys.due(shard)) for shard in range(keys.shards)])
    return left + ([f"{sum(due)} that wait for their time"] if any(due) else [])


def _read_final(url: str, shards: int) -> Final:
    with redis.Redis.from_url(url, decode_responses=True) as client:
        return read_final(client, NAMESPACE, shards)
