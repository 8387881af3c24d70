"""What the journals of a run and its children tell: how much was done, whether anything is missing or there twice, the story."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any, Self

from streammesh import Mesh
from streammesh.bids import LONGEST_ID
from streammesh.workflow import child_id

OUTCOMES = ("done", "failed", "fired")
COMMANDS = ("call", "child", "timer", "vote", "collect", "auction")
#: Command -> what it is called when many are counted.
TOGETHER = {"collect": "brainstorms", "vote": "votes"}


@dataclass(slots=True)
class Tale:
    """Runs and steps counted, what is wrong with them in words, and the journal of the first one in a few lines."""

    runs: int = 0
    steps: int = 0
    taken_over: int = 0
    lost: list[str] = field(default_factory=list)
    doubled: list[str] = field(default_factory=list)
    lines: list[str] = field(default_factory=list)
    #: Command (call, child, vote …) -> how many.
    commands: Counter[str] = field(default_factory=Counter)
    #: What many agents did together (brainstorms, votes, auctions) -> how it came out -> how often.
    outcomes: dict[str, Counter[str]] = field(default_factory=dict)

    @classmethod
    async def read(cls, mesh: Mesh, id: str) -> Self:
        """Read the run `id` and every run below it."""
        tale = cls()
        taken = await takeovers(mesh)
        tale.taken_over = sum(len(found) for found in taken.values())
        waiting, auctions = [id], []
        while waiting:
            run = waiting.pop()
            journal = await mesh.run(run).history()
            tale.look(run, journal)
            waiting += [record["run"] for record in journal if record["what"] == "child"]
            auctions += [
                child_id(run, record["path"], longest=LONGEST_ID) for record in journal if record["what"] == "auction"
            ]
            if run == id:
                tale.lines = shortened(journal, taken.get(id, []))
        if auctions:
            tale.outcomes["auctions"] = await awards(mesh, auctions)
        return tale

    def look(self, run: str, journal: list[dict[str, Any]]) -> None:
        """Count one run: each command has one outcome, and the run one end."""
        self.runs += 1
        given = {record["path"]: record for record in journal if record["what"] in COMMANDS}
        answered = Counter(record["of"] for record in journal if record["what"] in OUTCOMES)
        local = Counter(record["path"] for record in journal if record["what"] == "step")
        self.steps += len(given) + len(local)
        for record in journal:
            together = TOGETHER.get(given.get(record.get("of", ""), {}).get("what", ""))
            if together and record["what"] == "done":
                self.outcomes.setdefault(together, Counter())[came_to(record["result"])] += 1
        self.commands.update(record["what"] for record in given.values())
        self.lost += [f"{run}: {path} has no outcome" for path in given if not answered[path]]
        self.doubled += [f"{run}: {path} has {n} outcomes" for path, n in (answered + local).items() if n > 1]
        ends = [record["state"] for record in journal if record["what"] == "end"]
        if not ends:
            self.lost.append(f"{run}: it has not ended")
        elif len(ends) > 1:
            self.doubled.append(f"{run}: it ended {len(ends)} times")


def came_to(result: dict[str, Any]) -> str:
    """A vote's or a collection's outcome in words."""
    if "answers" not in result:
        return str(result["outcome"]).replace("_", " ")
    absent = len(result["dead"]) + len(result["silent"]) + len(result["invalid"])
    return f"without {absent} of {result['voters']}" if absent else "answered by all"


async def awards(mesh: Mesh, ids: list[str]) -> Counter[str]:
    """How auctions came out."""
    found: Counter[str] = Counter()
    wanted = [("HMGET", mesh.keys.auction(id), "winner", "award", "reason") for id in ids]
    for winner, award, reason in await mesh.store.commands(wanted):
        again = "awarded again" if award and int(award) > 1 else "awarded"
        found[again if winner else f"to the queue ({reason})"] += 1
    return found


async def takeovers(mesh: Mesh) -> dict[str, list[tuple[str, str]]]:
    """Run -> [(when, the dead agent that executed it)], from the audit tail."""
    found: dict[str, list[tuple[str, str]]] = {}
    for _, flat in await mesh.store.command("XRANGE", mesh.keys.events(), "-", "+"):
        event = dict(zip(flat[::2], flat[1::2], strict=True))
        if event["type"] == "run.reclaimed":
            found.setdefault(event["run"], []).append((event["at"], event["agent"]))
    return found


def shortened(journal: list[dict[str, Any]], taken: Iterable[tuple[str, str]]) -> list[str]:
    """One line for each stretch of commands of one name and their answers, and one for each takeover between them."""
    names = {record["path"]: record["name"] for record in journal if record["what"] in COMMANDS}
    deaths = sorted(taken)
    stretches: list[tuple[str, str, Counter[str]]] = []
    at = ""
    for record in journal:
        at = record.get("at", at)  # a command has none: it was given when the last answer came
        while deaths and at > deaths[0][0]:
            when, agent = deaths.pop(0)
            stretches.append((when, f"* {agent} is dead; another agent replays the journal and goes on", Counter()))
        what, of = record["what"], record.get("of", "")
        name = f"{what} {record.get('workflow') or record.get('state') or record.get('name', '')}".rstrip()
        name = names.get(of) or (record["name"] if what in COMMANDS else name)
        if not stretches or stretches[-1][1] != name:
            stretches.append((at, name, Counter()))
        stretches[-1][2]["answered" if of else "given" if what in COMMANDS else ""] += 1
    return [line(*stretch) for stretch in stretches]


def line(at: str, name: str, counts: Counter[str]) -> str:
    """When it began (the time of the day), what it is, how often."""
    said = ", ".join(f"{counts[word]:,} {word}" for word in ("given", "answered") if counts[word])
    return f"{at[11:23]:12}  {name}" + (f": {said}" if said else "")
