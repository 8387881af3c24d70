"""The demonstration: a folder of documents becomes a digest, while one of the agents that work on it is killed.

    ops/demo                     the standard library of this Python
    ops/demo FOLDER              every .md .txt .rst .html and .py below FOLDER
    ops/demo FOLDER -o FILE      where to write it (digest.md)
    ops/demo --keep              leave the server's data, and say how to look at it

Three agents read, count, summarize by three methods and criticize; the summary that its critic likes best goes into the
digest. On the way one agent, caught with tasks in its hands, gets SIGKILL. Exits 0 only if no task was lost and none was
settled twice.
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

from streammesh import Mesh, MeshError
from streammesh.errors import StoreUnavailable, TaskError
from workers.keywords import document_frequencies
from workers.summarizer import METHODS

AGENTS = 3
LEASE = 2.0  # seconds until a killed agent's tasks move on; the default of 10 would do as well, and make this longer
IN_FLIGHT = 32  # documents that are worked on at once
TASKS_EACH = 3 + 2 * len(METHODS)  # read, count, rank; for each method a summary and its critique
ENTRIES = 200  # of one part of the digest: a payload and a result have limits
ROOT = Path(__file__).resolve().parent.parent


class Story:
    """What happened: every task by id, every answer that the server pushed, and what the kill interrupted."""

    def __init__(self) -> None:
        self.tasks: list[str] = []
        self.answers: collections.Counter[str] = collections.Counter()
        self.refused: dict[str, str] = {}
        self.killed = ""
        self.interrupted: list[str] = []
        self.moved = 0
        self.lost: list[str] = []

    @property
    def doubled(self) -> list[str]:
        """Tasks that were settled more than once: each settlement pushes one answer to the client that waits."""
        return [id for id, count in self.answers.items() if count > 1]


class Demo:
    """One run of the demonstration."""

    def __init__(self, folder: Path, mesh: Mesh, progress: Progress) -> None:
        self.folder = folder
        self.mesh = mesh
        self.progress = progress
        self.bar = progress.add_task("reading", total=None)
        self.story = Story()
        self.agents: dict[int, subprocess.Popen[bytes]] = {}
        self.answered = asyncio.Event()

    # -- the agents

    def start_agent(self, url: str, log: Path) -> None:
        command = [
            sys.executable, "-m", "streammesh", "--url", url, "--namespace", self.mesh.namespace,
            "agent", "--app", "workers.librarian:agent", "--lease", str(LEASE), "--slots", "4",
        ]  # fmt: skip
        with log.open("ab") as file:
            agent = subprocess.Popen(command, cwd=ROOT, stdin=subprocess.DEVNULL, stdout=file, stderr=file)
        self.agents[agent.pid] = agent

    async def all_ready(self) -> None:
        end = time.monotonic() + 60
        while sum(agent.state == "ready" for agent in await self.mesh.agents()) < len(self.agents):
            for agent in self.agents.values():
                if agent.poll() is not None:
                    raise SystemExit(f"an agent ended at once with code {agent.returncode}; see its log")
            if time.monotonic() > end:
                raise SystemExit("the agents did not get ready within a minute; see their log")
            await asyncio.sleep(0.05)

    async def kill_one(self) -> None:
        """SIGKILL for an agent that has tasks in its hands at that moment: it is stopped, looked at, and then killed."""
        while True:
            for agent in await self.mesh.agents():
                pid = int(agent.fields["pid"])
                if pid not in self.agents:
                    continue
                os.kill(pid, signal.SIGSTOP)
                held = []
                try:
                    held = await self.held_by(agent.id)
                finally:
                    if not held:
                        os.kill(pid, signal.SIGCONT)
                if held:
                    os.kill(pid, signal.SIGKILL)
                    self.agents.pop(pid).wait()
                    self.story.killed, self.story.interrupted = agent.id, held
                    self.progress.console.print(f"  SIGKILL to [bold]{agent.id}[/] with {len(held)} tasks in its hands")
                    return

    async def held_by(self, agent: str) -> list[str]:
        open_ids = [id for id in self.story.tasks if id not in self.story.answers]
        records = await asyncio.gather(*(self.mesh.task(id).record() for id in open_ids), return_exceptions=True)
        return [
            record.id
            for record in records
            if not isinstance(record, BaseException) and record.state == "running" and record.agent == agent
        ]

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

    async def call(self, capability: str, id: str, **payload: Any) -> Any:
        self.story.tasks.append(id)
        try:
            return await self.mesh.call(capability, payload, id=id)
        finally:
            self.progress.advance(self.bar)

    async def document(self, number: int, path: str, turns: asyncio.Semaphore) -> dict[str, Any] | None:
        """Read one document; count its terms, summarize it by every method, and keep what the critic likes best."""
        async with turns:
            try:
                read = await self.call("read-document", f"read-{number}", path=path, folder=str(self.folder))
            except TaskError as refusal:
                self.story.refused[path] = str(refusal)
                self.progress.advance(self.bar, TASKS_EACH - 1)
                return None
            text, title = read["text"], read["title"]
            counting = asyncio.create_task(self.call("count-terms", f"count-{number}", text=text))
            summaries = await asyncio.gather(*(self.summary(number, method, text, title) for method in METHODS))
            best = max(summaries, key=lambda one: one["overall"])
            return {
                "number": number, "path": path, "title": title, "words": read["words"], "summary": best["sentences"],
                "counts": (await counting)["counts"],
            }  # fmt: skip

    async def summary(self, number: int, method: str, text: str, title: str) -> dict[str, Any]:
        made = await self.call("summarize", f"summary-{number}-{method}", text=text, method=method, title=title)
        judged = await self.call("criticize", f"critique-{number}-{method}", summary=made["sentences"], text=text)
        return {**made, **judged}

    async def rank(
        self, document: dict[str, Any], frequencies: dict[str, int], total: int, turns: asyncio.Semaphore
    ) -> None:
        counts = document.pop("counts")
        async with turns:
            ranked = await self.call(
                "rank-keywords", f"rank-{document['number']}", counts=counts, documents=total,
                frequencies={term: frequencies[term] for term in counts},
            )  # fmt: skip
        document["keywords"] = ranked["keywords"]

    async def run(self, title: str) -> tuple[str, list[dict[str, Any]]]:
        """The digest's text and its documents."""
        paths = await self.list_documents()
        total = len(paths) * TASKS_EACH + 3 + -(-len(paths) // ENTRIES)
        self.progress.update(self.bar, total=total, description="digesting")
        turns = asyncio.Semaphore(IN_FLIGHT)
        half = asyncio.create_task(self.kill_at(len(paths) * TASKS_EACH // 5))
        found = await asyncio.gather(*(self.document(n, path, turns) for n, path in enumerate(paths)))
        documents = [document for document in found if document]
        frequencies = document_frequencies(document["counts"] for document in documents)
        await asyncio.gather(*(self.rank(document, frequencies, len(documents), turns) for document in documents))
        half.cancel()
        self.progress.update(self.bar, description="assembling")
        return await self.assemble(documents, title), documents

    async def list_documents(self) -> list[str]:
        paths: list[str] = []
        more = True
        while more:
            listed = await self.call(
                "list-documents", f"list-{len(paths)}", folder=str(self.folder), after=paths[-1] if paths else ""
            )
            paths += listed["documents"]
            more = listed["more"]
        return paths

    async def assemble(self, documents: list[dict[str, Any]], title: str) -> str:
        """Head and index from documents without summaries, the entries some hundred at a time: none is too large."""
        bare = [{key: document[key] for key in ("path", "title", "words", "keywords")} for document in documents]
        starts = range(0, len(documents), ENTRIES)
        parts = [
            ("head", bare, ""),
            *(("entries", documents[n : n + ENTRIES], documents[n - 1]["path"] if n else "") for n in starts),
            ("index", bare, ""),
        ]
        texts = await asyncio.gather(
            *(
                self.call("assemble-digest", f"assemble-{n}", documents=some, title=title, sections=[part], after=after)
                for n, (part, some, after) in enumerate(parts)
            )
        )
        return "\n".join(text["markdown"] for text in texts)

    async def kill_at(self, count: int) -> None:
        while len(self.story.answers) < count:
            self.answered.clear()
            await self.answered.wait()
        await self.kill_one()

    # -- the witness

    async def witness(self) -> None:
        """Reads the same stream of answers as the client does, and counts: two for one task would be a second settlement."""
        link = self.mesh.store.link("witness")
        stream, last = self.mesh.keys.replies(self.mesh.replies.client), "0-0"
        while True:
            got = await self.mesh.store.command(
                "XREAD", "COUNT", 1000, "BLOCK", 1000, "STREAMS", stream, last, link=link
            )
            for _, entries in got or ():
                for entry, flat in entries:
                    self.story.answers[flat[flat.index("id") + 1]] += 1
                    last = entry
            self.answered.set()

    async def check(self) -> None:
        """Look at the record of every task: lost is what has no outcome, moved what ended on another agent than it began."""
        for id in self.story.tasks:
            try:
                record = await self.mesh.task(id).record()
            except TaskError:
                self.story.lost.append(id)
                continue
            if not record.state.final:
                self.story.lost.append(id)
            if id in self.story.interrupted and record.agent != self.story.killed:
                self.story.moved += 1


def report(console: Console, demo: Demo, documents: list[dict[str, Any]], seconds: float, output: Path) -> bool:
    """Print the table; True when nothing was lost and nothing doubled."""
    story = demo.story
    table = Table(title=f"digest of {demo.folder.name}", title_justify="left")
    for column in ("documents", "tasks", "moved after the kill", "lost", "doubled", "seconds"):
        table.add_column(column, justify="right")
    table.add_row(
        str(len(documents)), str(len(story.tasks)), str(story.moved), str(len(story.lost)), str(len(story.doubled)), f"{seconds:.1f}"
    )  # fmt: skip
    console.print(table)
    for path, why in list(story.refused.items())[:5]:
        console.print(f"  not read: {path}: {why}", markup=False)
    if len(story.refused) > 5:
        console.print(f"  … and {len(story.refused) - 5} more that could not be read")
    if not story.killed:
        console.print("  no agent was killed: the work was over too soon")
    console.print(f"written: {output}")
    return not story.lost and not story.doubled


async def main(folder: Path, output: Path, data: Path, keep: bool, console: Console) -> int:
    began = time.monotonic()
    with Progress(
        TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TextColumn("tasks"), TimeElapsedColumn(),
        console=console,
    ) as progress:  # fmt: skip
        async with Mesh.connect(f"embedded://{data}", namespace="demo") as mesh:
            demo = Demo(folder, mesh, progress)
            witness = asyncio.create_task(demo.witness())
            try:
                for number in range(AGENTS):
                    demo.start_agent(mesh.url, data / f"agent-{number + 1}.log")
                await demo.all_ready()
                text, documents = await demo.run(f"Digest of {folder.name}")
                await demo.check()
            finally:
                witness.cancel()
                demo.stop_agents()
    if not documents:
        console.print(f"there is no readable document below {folder} (.md .txt .rst .html .py); nothing was written")
    await asyncio.to_thread(output.write_text, text, encoding="utf-8")
    good = report(console, demo, documents, time.monotonic() - began, output)
    if keep:
        console.print(f"look inside: streammesh --url embedded://{data} --namespace demo info")
    return 0 if good and documents else 1


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
    except (MeshError, StoreUnavailable) as error:
        sys.exit(f"ops/demo: {error}; the logs are in {place}")
    except KeyboardInterrupt:
        code = 130
    if not options.keep:
        shutil.rmtree(place, ignore_errors=True)
    sys.exit(code)
