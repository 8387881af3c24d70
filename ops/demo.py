"""The demonstration: a folder of documents becomes a digest, in one durable run, while agents are killed.

    ops/demo                     the standard library of this Python
    ops/demo FOLDER              every .md .txt .rst .html and .py below FOLDER
    ops/demo FOLDER -o FILE      where to write it (digest.md)
    ops/demo --keep              leave the server's data, and say how to look at it

Workflow `digest` (workers/digest.py) lists the documents and starts a child run for each. Four agents choose the summaries
together: they propose, score and vote; long documents are auctioned. On the way agents get SIGKILL, one in each of these
phases, caught with a part of it in its hands, and the one that executes the run itself; a new process takes the place of
each. Exits 0 only if all of them were killed, every run ended once, and every step has one outcome.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import shutil
import signal
import subprocess
import sys
import sysconfig
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table

from ops.tale import Tale
from streammesh import Mesh, MeshError
from streammesh.registry import AgentInfo

AGENTS = 4
LEASE = 2.0  # seconds until a killed agent's work moves on; the default of 10 would do as well, and make this longer
RUN = "digest-1"
ROOT = Path(__file__).resolve().parent.parent


@dataclass(frozen=True, slots=True)
class Victim:
    """Whom to kill: an agent that holds an entry of ``stream`` ({} is its id) of which a field ends so, or without a stream the
    one that executes the run; ``after`` is the share of documents that are done."""

    whom: str
    after: float
    stream: str = ""
    field: str = ""
    ending: str = ""


VICTIMS = (
    Victim("in a brainstorm: it was asked for a proposal", 0.03, "mail:{}", "type", "collect.ask"),
    Victim("in an auction: it had won, and was at work", 0.06, "inbox:{}", "id", ":work"),
    Victim("in a critique: it was to score a proposal", 0.15, "tasks:criticize"),
    Victim("in a vote: its ballot was not cast", 0.25, "mail:{}", "type", "vote.open"),
    Victim("the executor of the run", 0.35),
)


class Demo:
    """One run of the demonstration."""

    def __init__(self, mesh: Mesh, data: Path, progress: Progress) -> None:
        self.mesh = mesh
        self.data = data
        self.progress = progress
        self.agents: dict[int, subprocess.Popen[bytes]] = {}
        self.started = 0
        #: The share of documents that are done.
        self.done = 0.0
        #: Whom -> the agent that was killed.
        self.killed: dict[str, str] = {}

    # -- the agents

    def start_agent(self) -> None:
        self.started += 1
        command = [
            sys.executable, "-m", "streammesh", "--url", self.mesh.url, "--namespace", self.mesh.namespace,
            "agent", "--app", "workers.librarian:agent", "--lease", str(LEASE), "--slots", "4",
        ]  # fmt: skip
        with (self.data / f"agent-{self.started}.log").open("ab") as file:
            agent = subprocess.Popen(command, cwd=ROOT, stdin=subprocess.DEVNULL, stdout=file, stderr=file)
        self.agents[agent.pid] = agent

    async def all_ready(self) -> None:
        end = time.monotonic() + 60
        while sum(agent.state == "ready" for agent in await self.mesh.agents()) < len(self.agents):
            for agent in self.agents.values():
                if agent.poll() is not None:
                    raise SystemExit(f"an agent ended at once with code {agent.returncode}; see its log in {self.data}")
            if time.monotonic() > end:
                raise SystemExit(f"the agents did not get ready within a minute; see their logs in {self.data}")
            await asyncio.sleep(0.05)

    async def kill_all(self) -> None:
        """One after the other, each when its time has come."""
        for victim in VICTIMS:
            await self.kill(victim)

    async def kill(self, victim: Victim) -> None:
        """SIGKILL for an agent that is caught: it is stopped, looked at, and then killed. Most of the others are alive."""
        whom = victim.whom
        while True:
            ready = [agent for agent in await self.mesh.agents() if agent.state == "ready" and self.pid(agent)]
            found = await self.holders(ready, victim) if len(ready) >= AGENTS - 1 and self.done >= victim.after else []
            for agent in found:
                pid = self.pid(agent)
                os.kill(pid, signal.SIGSTOP)
                held = False
                try:
                    # Twice: what it had sent before it stopped has arrived by the second look.
                    held = bool(await self.holders([agent], victim) and await self.holders([agent], victim))
                finally:
                    os.kill(pid, signal.SIGKILL if held else signal.SIGCONT)
                if held:
                    await asyncio.to_thread(self.agents.pop(pid).wait)
                    self.killed[whom] = agent.id
                    self.progress.console.print(f"  SIGKILL to [bold]{agent.id}[/], {whom}")
                    self.start_agent()
                    return
            await asyncio.sleep(0.005)

    def pid(self, agent: AgentInfo) -> int:
        """Its process, if it is one of ours and alive, else 0."""
        pid = int(agent.fields["pid"])
        return pid if pid in self.agents else 0

    async def holders(self, agents: list[AgentInfo], victim: Victim) -> list[AgentInfo]:
        """Those that hold such an entry."""
        if not victim.stream:
            head = await self.mesh.run(RUN).head()
            return [
                agent for agent in agents if (head.fields["state"], head.fields.get("agent")) == ("running", agent.id)
            ]
        store, prefix = self.mesh.store, self.mesh.keys.prefix()
        streams = [prefix + victim.stream.format(agent.id) for agent in agents]
        pending = await store.commands(
            [
                ("XPENDING", stream, "agents", "-", "+", 10, agent.id)
                for stream, agent in zip(streams, agents, strict=True)
            ]
        )
        entries = [
            (agent, ("XRANGE", stream, entry[0], entry[0]))
            for agent, stream, reply in zip(agents, streams, pending, strict=True)
            for entry in ([] if isinstance(reply, Exception) else reply)
        ]
        if not victim.field:
            return [agent for agent in agents if any(holder is agent for holder, _ in entries)]
        found = []
        for (agent, _), reply in zip(entries, await store.commands([look for _, look in entries]), strict=True):
            flat = [] if isinstance(reply, Exception) or not reply else reply[0][1]
            if dict(zip(flat[::2], flat[1::2], strict=True)).get(victim.field, "").endswith(victim.ending):
                found.append(agent.id)
        return [agent for agent in agents if agent.id in found]

    def stop_agents(self) -> None:
        for agent in self.agents.values():
            agent.terminate()
        for agent in self.agents.values():
            try:
                agent.wait(timeout=15)
            except subprocess.TimeoutExpired:
                agent.kill()
                agent.wait()

    # -- the work

    async def run(self, folder: Path) -> dict[str, Any]:
        """Start the run, kill on the way, and return its result."""
        handle = await self.mesh.start("digest", folder=str(folder), title=f"Digest of {folder.name}", id=RUN)
        result = asyncio.create_task(handle.result())
        killing = asyncio.create_task(self.kill_all())
        bar = self.progress.add_task("listing", total=None)
        while not result.done():
            status = await handle.status()
            done, total = status.get("done", 0), status.get("documents")
            self.done = done / total if total else 0.0
            self.progress.update(bar, completed=done, total=total, description=status.get("phase", "listing"))
            await asyncio.wait({result}, timeout=0.02)
        if killing.done():
            await killing
        killing.cancel()
        found: dict[str, Any] = await result
        return found


def report(console: Console, folder: Path, tale: Tale, result: dict[str, Any], seconds: float) -> bool:
    """Print the table and the story; True when nothing was lost and nothing doubled."""
    table = Table(title=f"digest of {folder.name}", title_justify="left")
    row = {
        "documents": result["documents"], "runs": tale.runs, "steps": tale.steps, "taken over": tale.taken_over,
        "lost": len(tale.lost), "doubled": len(tale.doubled), "seconds": f"{seconds:.1f}",
    }  # fmt: skip
    for column in row:
        table.add_column(column, justify="right")
    table.add_row(*map(str, row.values()))
    console.print(table)
    together = Table()
    for column in ("done together", "how often", "outcome"):
        together.add_column(column, justify="right" if column == "how often" else "left")
    for what, outcomes in sorted(tale.outcomes.items()):
        for n, (outcome, count) in enumerate(outcomes.most_common()):
            together.add_row("" if n else what, str(count), outcome)
    if tale.outcomes:
        console.print(together)
    chosen = ", ".join(f"{method} {count}" for method, count in result["methods"].items())
    console.print(f"summaries by method: {chosen or 'none'}")
    refused = result["refused"]
    for one in refused[:5]:
        console.print(f"  not read: {one['path']}: {one['why']}", markup=False)
    if len(refused) > 5:
        console.print(f"  … and {len(refused) - 5} more that could not be read")
    console.print(f"\nthe journal of {RUN}, shortened:")
    for line in tale.lines:
        console.print(f"  {line}", markup=False, highlight=False, soft_wrap=True)
    for broken in (*tale.lost, *tale.doubled):
        console.print(f"  [red]{broken}[/]")
    return not tale.lost and not tale.doubled


async def main(folder: Path, output: Path, data: Path, keep: bool, console: Console) -> int:
    began = time.monotonic()
    with Progress(
        TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TextColumn("documents"),
        TimeElapsedColumn(), console=console,
    ) as progress:  # fmt: skip
        async with Mesh.connect(f"embedded://{data}", namespace="demo") as mesh:
            demo = Demo(mesh, data, progress)
            try:
                for _ in range(AGENTS):
                    demo.start_agent()
                await demo.all_ready()
                result = await demo.run(folder)
                seconds = time.monotonic() - began
                tale = await Tale.read(mesh, RUN)
            finally:
                demo.stop_agents()
    if not result["documents"]:
        console.print(f"there is no readable document below {folder} (.md .txt .rst .html .py); nothing was written")
    await asyncio.to_thread(output.write_text, result["markdown"], encoding="utf-8")
    good = report(console, folder, tale, result, seconds)
    missed = [victim.whom for victim in VICTIMS if victim.whom not in demo.killed]
    for whom in missed if result["documents"] else ():
        console.print(f"[red]nobody was killed {whom}[/]: the work was over too soon")
    console.print(f"written: {output}")
    if keep:
        console.print(
            f"look inside: streammesh --url embedded://{data} --namespace demo run show {RUN}", soft_wrap=True
        )
    return 0 if good and result["documents"] and not missed else 1


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="ops/demo", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("folder", nargs="?", type=Path, default=Path(sysconfig.get_path("stdlib")))
    parser.add_argument("-o", "--output", type=Path, default=Path("digest.md"))
    parser.add_argument("--keep", action="store_true", help="leave the server's data behind")
    return parser.parse_args()


if __name__ == "__main__":
    options = arguments()
    if not options.folder.is_dir():
        sys.exit(
            f"ops/demo: there is no folder {options.folder}; give one that holds documents, or none for the standard library"
        )
    place = Path(tempfile.mkdtemp(prefix="streammesh-demo-"))
    try:
        code = asyncio.run(
            main(options.folder.resolve(), options.output.resolve(), place, options.keep, Console(stderr=False))
        )
    except MeshError as error:
        sys.exit(f"ops/demo: {error}; the logs are in {place}")
    except KeyboardInterrupt:
        code = 130
    if not options.keep:
        shutil.rmtree(place, ignore_errors=True)
    sys.exit(code)
