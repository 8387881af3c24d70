"""Chaos with runs: workflows of ten steps while agents and their server are killed, frozen and cut off.

`python -m tests.chaos.runs --runs 500 --faults 40 --seed 7` by hand; `play` for a test. `tales.py` has the workflows,
`endings.py` judges.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import logging
import random
import shutil
import sys
import tempfile
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import redis

from streammesh import Mesh, MeshError
from tests.chaos import faults
from tests.chaos.endings import Judgement, Tale, judge, leftovers, read_runs
from tests.chaos.history import read_history
from tests.chaos.stage import NAMESPACE, Stage
from tests.chaos.tales import deeds, make_tale

__all__ = ["Setting", "play"]

#: Faults that explain what is seen, in their shares. No lack of memory and no pauses: those are for tasks.
SHARES: Mapping[str, int] = {
    "agent_kill": 34, "agent_freeze": 16, "agent_drain": 6, "server_kill": 12, "server_freeze": 4, "client_kill": 8,
    "script_flush": 5, "cut_replies": 8, "tear_requests": 4, "swallow": 3,
}  # fmt: skip
#: Mean seconds between two faults.
GAP = 0.45


@dataclass(frozen=True, slots=True)
class Setting:
    """What is run."""

    folder: Path
    seed: int
    runs: int = 500
    faults: int = 40
    steps: int = 10
    lease: float = 1.2
    agents: int = 4
    #: The server's appendfsync. With everysec a killed server may have lost what it had acknowledged a moment before: then
    #: clients say everything again at the end, as they would after a restore.
    fsync: str = "always"
    shares: Mapping[str, int] = field(default_factory=lambda: SHARES)

    @property
    def patience(self) -> float:
        """Seconds from the last fault after which everything has to be ended."""
        return 30 + 10 * self.lease


def make_tales(setting: Setting) -> list[Tale]:
    """The runs to be: most go to their end by themselves, some are cancelled, terminated, paused or begun anew."""
    dice = random.Random(f"tales {setting.seed}")
    tales = []
    for number in range(setting.runs):
        one = Tale(f"r{number}", make_tale(dice, setting.steps))
        what = dice.randrange(25)
        if what < 2:
            one.cancel = dice.uniform(0.0, 3.0)
        elif what == 2:
            one.terminate = dice.uniform(0.0, 3.0)
        elif what == 3:
            one.pause = dice.uniform(0.0, 2.0)
        elif what < 6:
            one.again = dice.randint(1, setting.steps - 1)
        tales.append(one)
    return tales


class Teller:
    """Starts the runs over ``seconds``, and does to each what it is to suffer; repeats what nobody knows the fate of."""

    def __init__(self, mesh: Mesh, tales: list[Tale], seconds: float, seed: int) -> None:
        self._mesh = mesh
        self._tales = tales
        self._pause = seconds / max(1, len(tales))
        self._dice = random.Random(f"teller {seed}")
        self.told: dict[str, tuple[str, object]] = {}
        self.started = 0

    async def run(self) -> None:
        async with asyncio.TaskGroup() as group:
            for one in self._tales:
                group.create_task(self._tell(one))
                await asyncio.sleep(self._pause)

    async def once_more(self) -> None:
        """Start and signal everything again: what is known is not new."""
        for one in self._tales:
            await self._surely(lambda one=one: self._mesh.start("tale", self._input(one), id=one.id))  # type: ignore[misc]
            await asyncio.gather(*(self._send(one, number) for number in range(one.words.count("signal"))))
            if one.pause is not None:
                await self._surely(lambda one=one: self._mesh.run(one.id).resume(by="chaos"))  # type: ignore[misc]

    @staticmethod
    def _input(one: Tale) -> dict[str, object]:
        return {"words": one.words, "again": one.again}

    async def _send(self, one: Tale, number: int) -> None:
        # With an id: however often it is sent, it is one signal.
        await self._surely(lambda: self._mesh.run(one.id).signal("go", number, id=f"go-{number}"))

    async def _tell(self, one: Tale) -> None:
        await self._surely(lambda: self._mesh.start("tale", self._input(one), id=one.id))
        self.started += 1
        handle = self._mesh.run(one.id)
        async with asyncio.TaskGroup() as group:
            group.create_task(self._signal(one))
            if one.cancel is not None:
                group.create_task(self._later(one.cancel, lambda: handle.cancel(by="chaos")))
            if one.terminate is not None:
                group.create_task(self._later(one.terminate, lambda: handle.terminate(by="chaos")))
            if one.pause is not None:
                await self._later(one.pause, lambda: handle.pause(by="chaos"))
                await self._later(0.5, lambda: handle.resume(by="chaos"))

    async def _signal(self, one: Tale) -> None:
        for number in range(one.words.count("signal")):
            await asyncio.sleep(self._dice.uniform(0.0, 1.0))
            await self._send(one, number)

    async def _later(self, seconds: float, act: Callable[[], object]) -> None:
        await asyncio.sleep(seconds)
        await self._surely(act)

    async def _surely(self, act: Callable[[], object]) -> None:
        while True:
            try:
                await act()  # type: ignore[misc]
                return
            except MeshError:
                await asyncio.sleep(self._dice.uniform(0.02, 0.2))


async def play(setting: Setting, say: Callable[[str], None] = lambda _: None) -> Judgement:
    """Run it, and judge what came of it; the folder keeps everything."""
    began = time.monotonic()
    tales = make_tales(setting)
    plan = faults.schedule(setting.seed, setting.faults, setting.agents, setting.shares)
    stage = Stage(
        setting.folder, seats=setting.agents, slots=16, lease=setting.lease, seed=setting.seed, fsync=setting.fsync,
        victim="tests.chaos.tales",
    )  # fmt: skip
    async with stage:
        async with asyncio.timeout(30):
            while len(await stage.inspector.agents()) < len(stage.seats):  # noqa: ASYNC110 - they come without a word
                await asyncio.sleep(0.05)
        async with Mesh.connect(stage.producer.url, namespace=NAMESPACE, patience=0.3, name="teller") as mesh:
            teller = Teller(mesh, tales, setting.faults * GAP * 0.8, setting.seed)
            telling = asyncio.create_task(teller.run())
            try:
                async with asyncio.TaskGroup() as group:
                    for number, fault in enumerate(plan, 1):
                        await asyncio.sleep(fault.gap)
                        group.create_task(stage.suffer(fault))
                        say(f"{number:>4}/{len(plan)} {fault.kind:<14} on {fault.seat}   started {teller.started}")
                await stage.calm()
                say(f"calm after {time.monotonic() - began:.1f} s; waiting until all has ended")
                calm = time.monotonic()
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(setting.patience):
                        await telling
                        if setting.fsync == "everysec":
                            await teller.once_more()
                settled = None
                while time.monotonic() - calm < setting.patience:
                    if telling.done() and not await leftovers(stage.inspector):
                        settled = time.monotonic() - calm
                        break
                    await asyncio.sleep(0.1)
            finally:
                telling.cancel()
                await asyncio.gather(telling, return_exceptions=True)
        await stage.gone()
        left = await leftovers(stage.inspector)
        with redis.Redis.from_url(stage.server.url, decode_responses=True) as client:
            found = await asyncio.to_thread(read_runs, client, NAMESPACE)
        await stage.dismiss()
    judgement = judge(
        tales, found, deeds(setting.folder), read_history(setting.folder), setting.lease, setting.fsync == "everysec"
    )
    judgement.violations += [f"left over: {one}" for one in left] + stage.surprises
    if settled is None:
        judgement.violations.insert(0, f"not everything had ended {setting.patience:g} s after the last fault")
    judgement.lines[:0] = [
        (
            f"seed {setting.seed}: {len(tales)} runs of {setting.steps} steps, {sum(stage.done.values())} faults, "
            f"{stage.started} agent processes, {time.monotonic() - began:.1f} s; "
            f"settled {settled or 0:.1f} s after the last fault"
        ),
        "faults: " + ", ".join(f"{kind} {count}" for kind, count in sorted(stage.done.items())),
    ]
    return judgement


def _say(line: str) -> None:
    sys.stderr.write(f"{line}\n")
    sys.stderr.flush()


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.chaos.runs", description=__doc__)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--runs", type=int, default=500)
    parser.add_argument("--faults", type=int, default=40)
    parser.add_argument("--agents", type=int, default=4)
    parser.add_argument("--lease", type=float, default=1.2)
    parser.add_argument("--fsync", choices=["always", "everysec"], default="always")
    parser.add_argument("--only", choices=sorted(faults.KINDS), help="one kind of faults")
    parser.add_argument("--keep", action="store_true", help="keep the histories of a run that passed")
    given = vars(parser.parse_args())
    only, keep = given.pop("only"), given.pop("keep")
    logging.getLogger("streammesh").setLevel(logging.CRITICAL)
    folder = Path(tempfile.mkdtemp(prefix="chaos-runs-"))
    setting = Setting(folder, shares={only: 100} if only else SHARES, **given)
    judgement = asyncio.run(play(setting, _say))
    if not judgement.violations and not keep:
        shutil.rmtree(folder)
    sys.stdout.write(f"{judgement}\nhistories: {folder if folder.exists() else 'removed; --keep keeps them'}\n")
    return 1 if judgement.violations else 0


if __name__ == "__main__":
    sys.exit(main())
