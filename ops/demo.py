"""The demonstration: a folder of documents becomes a digest, in one durable run, while agents are killed.

    ops/demo                     the standard library of this Python
    ops/demo FOLDER              every .md .txt .rst .html and .py below FOLDER
    ops/demo FOLDER -o FILE      where to write it (digest.md)
    ops/demo --keep              leave the server's data, and say how to look at it

Workflow `digest` (workers/digest.py) lists the documents and starts a child run for each. On the way agents get SIGKILL:
one that was caught with tasks in its hands, and the one that executes the run itself; a new process takes the place of
each. Exits 0 only if every run ended once, and every step has one outcome.
"""

from __future__ import annotations

import argparse
import asyncio
import collections
import os
import shutil
import signal
import subprocess
import sys
import sysconfig
import tempfile
import time
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

#: Whom to kill, when (the share of documents that are done), and the streams of which it must hold an entry.
KILLS = (
    ("a worker", 0.1, ("tasks:summarize", "tasks:criticize")),
    ("the executor of the run", 0.3, ("runs:digest",)),
)


class Demo:
    """One run of the demonstration."""

    def __init__(self, mesh: Mesh, data: Path, progress: Progress) -> None:
        self.mesh = mesh
        self.data = data
        self.progress = progress
        self.agents: dict[int, subprocess.Popen[bytes]] = {}
        self.started = 0
        #: Processes that are stopped, to see whether they are to be killed.
        self.aimed: set[int] = set()
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

    async def kill(self, whom: str, streams: tuple[str, ...]) -> None:
        """SIGKILL for an agent that holds an entry of one of the streams: it is stopped, looked at, and then killed."""
        while True:
            for agent in await self.mesh.agents():
                pid = int(agent.fields["pid"])
                if pid in self.aimed or pid not in self.agents or not await self.held(agent, streams):
                    continue
                self.aimed.add(pid)
                os.kill(pid, signal.SIGSTOP)
                held = 0
                try:
                    held = await self.held(agent, streams)
                finally:
                    if not held:
                        os.kill(pid, signal.SIGCONT)
                        self.aimed.discard(pid)
                if held:
                    os.kill(pid, signal.SIGKILL)
                    await asyncio.to_thread(self.agents.pop(pid).wait)
                    self.killed[whom] = agent.id
                    self.progress.console.print(f"  SIGKILL to [bold]{agent.id}[/], {whom}")
                    self.start_agent()
                    return
            await asyncio.sleep(0.01)

    async def held(self, agent: AgentInfo, streams: tuple[str, ...]) -> int:
        """How many entries of these streams are in the agent's hands."""
        prefix = self.mesh.keys.prefix()
        replies = await self.mesh.store.commands(
            [("XPENDING", f"{prefix}{stream}", "agents", "-", "+", 10, agent.id) for stream in streams]
        )
        return sum(0 if isinstance(reply, Exception) else len(reply) for reply in replies)

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
        kills = collections.deque(KILLS)
        killing: list[asyncio.Task[None]] = []
        bar = self.progress.add_task("listing", total=None)
        while not result.done():
            status = await handle.status()
            done, total = status.get("done", 0), status.get("documents")
            self.progress.update(bar, completed=done, total=total, description=status.get("phase", "listing"))
            while kills and total and done >= kills[0][1] * total:
                whom, _, streams = kills.popleft()
                killing.append(asyncio.create_task(self.kill(whom, streams)))
            await asyncio.wait({result}, timeout=0.02)
        for kill in killing:
            if kill.done():
                await kill
            kill.cancel()
        found: dict[str, Any] = await result
        return found


def report(console: Console, folder: Path, tale: Tale, result: dict[str, Any], seconds: float) -> bool:
    """Print the table and the story; True when nothing was lost and nothing doubled."""
    table = Table(title=f"digest of {folder.name}", title_justify="left")
    for column in ("documents", "runs", "steps", "taken over", "lost", "doubled", "seconds"):
        table.add_column(column, justify="right")
    row = (result["documents"], tale.runs, tale.steps, tale.taken_over, len(tale.lost), len(tale.doubled))
    table.add_row(*map(str, row), f"{seconds:.1f}")
    console.print(table)
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
    for whom, _, _ in KILLS:
        if whom not in demo.killed:
            console.print(f"{whom} was not killed: the work was over too soon")
    console.print(f"written: {output}")
    if keep:
        console.print(f"look inside: streammesh --url embedded://{data} --namespace demo run show {RUN}")
    return 0 if good and result["documents"] else 1


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
