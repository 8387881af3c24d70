"""One flow as one tree: every task, message, run, vote and auction that one thing caused, directly or not.

Read-only, from what is kept of it: the story of the flow (a day), records (their retention), journals, and the events. What is
no longer there is left out, and what it caused hangs under the root instead: a trace is one tree, whatever is lost.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

from streammesh import codec
from streammesh.errors import RunNotFound, TaskNotFound
from streammesh.keys import Keys, check_id
from streammesh.steps import Steps
from streammesh.store import Store

__all__ = ["Traced", "Traces"]

#: Events of each shard that are looked through.
EVENTS = 10_000
#: Things in one trace, at most.
LARGEST = 20_000


@dataclass(slots=True)
class Traced:
    """One thing in a flow. ``kind``: task, message, run, step, vote, auction, or flow (the root, where nothing is known of it).

    ``by`` is who sent or began it, ``agents`` who ran or heard it; times are ISO-8601.
    """

    kind: str
    id: str
    name: str = ""
    state: str = ""
    by: str = ""
    to: str = ""
    at: str = ""
    ended: str = ""
    causation: str = ""
    error: str = ""
    agents: list[str] = field(default_factory=list)
    children: list[Traced] = field(default_factory=list)

    def walk(self) -> Iterator[Traced]:
        """This one and all below it, a parent before its children."""
        stack = [self]
        while stack:
            one = stack.pop()
            yield one
            stack += reversed(one.children)

    def json(self) -> dict[str, Any]:
        """All of it as JSON, without the empty fields."""
        names = ("kind", "id", "name", "state", "by", "to", "at", "ended", "causation", "error", "agents")
        flat = {name: getattr(self, name) for name in names if getattr(self, name)}
        return flat | {"children": [child.json() for child in self.children]}


class Traces:
    """Reads the flows of one mesh."""

    def __init__(self, store: Store, keys: Keys) -> None:
        self._store = store
        self._keys = keys
        self._steps = Steps(store, keys)

    async def read(self, id: str) -> Traced:
        """The tree of the flow that ``id`` began, or belongs to (a task's or run's id). Raises TaskNotFound."""
        check_id(id, "correlation id")
        fields = await self._hash(self._keys.task(id)) or await self._hash(self._keys.run(id))
        root = fields.get("correlation") or id
        found: dict[str, Traced] = {}
        flows, seen = [root], {root}
        for flow in flows:
            await self._flow(flow, found)
            fresh = [one for one in list(found.values()) if one.kind == "run" and one.id not in seen]
            if flow not in found and await self._exists(flow):
                fresh += [found[flow]] if (await self._root(flow, found)).kind == "run" else []
            for run in fresh:
                seen.add(run.id)
                flows.append(run.id)
                await self._run(run, found)
            if len(found) > LARGEST:
                break
        await self._events(seen, found)
        await self._records(found)
        if not found and not await self._exists(root):
            raise TaskNotFound(f"nothing is known of a flow {id}: never in this mesh, or longer ago than it is kept")
        return _tree(root, found)

    async def _hash(self, key: str) -> dict[str, str]:
        flat = await self._store.command("HGETALL", key)
        return dict(zip(flat[::2], flat[1::2], strict=True))

    async def _exists(self, id: str) -> bool:
        return bool(await self._store.command("EXISTS", self._keys.task(id))) or bool(
            await self._store.command("EXISTS", self._keys.run(id))
        )

    async def _root(self, id: str, found: dict[str, Traced]) -> Traced:
        run = await self._store.command("EXISTS", self._keys.run(id))
        found[id] = Traced("run" if run else "task", id)
        return found[id]

    async def _flow(self, flow: str, found: dict[str, Traced]) -> None:
        """What the scripts wrote into the story of the flow."""
        heard = []
        for shard in range(self._keys.shards):
            for text in await self._store.command("LRANGE", self._keys.flow(flow, shard), 0, -1):
                line = codec.decode_object(text)
                if line["what"] == "heard":
                    heard.append(line)
                    continue
                found.setdefault(
                    line["id"],
                    Traced(
                        line["what"], line["id"], line.get("name", ""), "sent" if line["what"] == "message" else "", line.get("by", ""),
                        line.get("to", ""), line.get("at", ""), causation=line.get("causation", ""),
                    ),
                )  # fmt: skip
        for line in heard:
            one = found.get(line.get("id", ""))
            if one is not None:
                one.state, one.ended, one.error = line["state"], line["at"], line.get("error", "")
                if line["by"] not in one.agents:
                    one.agents.append(line["by"])

    async def _run(self, run: Traced, found: dict[str, Traced]) -> None:
        """What a run did: its tasks, children and steps."""
        try:
            story = await self._steps.read(run.id)
        except RunNotFound:
            return
        head = story.head.fields
        run.name, run.state, run.error = head.get("capability", ""), head.get("state", ""), head.get("error", "")
        run.at, run.ended = head.get("started_at", ""), head.get("finished_at", "")
        run.causation = run.causation or head.get("parent") or head.get("causation", "")
        for step in story.steps:
            kind = {"call": "task", "child": "run"}.get(step.what, step.what)
            if kind in ("task", "run") and step.id:
                one = found.setdefault(step.id, Traced(kind, step.id, step.name))
                one.causation = run.id
            elif kind == "step":
                id = f"{run.id}:{step.path}"
                found[id] = Traced("step", id, step.name, step.state, error=step.error, causation=run.id)

    async def _events(self, flows: set[str], found: dict[str, Traced]) -> None:
        """Votes and auctions, whose events say what they belong to."""
        for shard in range(self._keys.shards):
            entries = await self._store.command("XREVRANGE", self._keys.events(shard), "+", "-", "COUNT", EVENTS)
            for _, flat in reversed(entries):
                event = dict(zip(flat[::2], flat[1::2], strict=True))
                kind, _, what = event.get("type", "").partition(".")
                id = event.get(kind, "")
                if kind not in ("vote", "auction") or event.get("correlation") not in flows or not id:
                    continue
                cause = event.get("causation", "")
                name = event.get("question") or event.get("capability", "")
                one = found.setdefault(id, Traced(kind, id, name, at=event.get("at", "")))
                if not one.causation and cause != id:
                    one.causation = cause
                one.state = event.get("outcome") or event.get("state") or what
                if event.get("agent") and event["agent"] not in one.agents:
                    one.agents.append(event["agent"])

    async def _records(self, found: dict[str, Traced]) -> None:
        """What the records say of tasks."""
        tasks = [one for one in found.values() if one.kind == "task"]
        names = ("capability", "state", "agent", "error", "enqueued_at", "finished_at", "causation")
        for start in range(0, len(tasks), 1000):
            some = tasks[start : start + 1000]
            replies = await self._store.commands([("HMGET", self._keys.task(one.id), *names) for one in some])
            for one, reply in zip(some, replies, strict=True):
                if isinstance(reply, Exception) or not reply[1]:
                    one.state = one.state or "gone"
                    continue
                capability, state, agent, error, at, ended, cause = (text or "" for text in reply)
                one.name, one.state, one.error, one.at, one.ended = (
                    capability or one.name,
                    state,
                    error,
                    at or one.at,
                    ended,
                )
                one.agents = [agent] if agent else []
                one.causation = one.causation or cause


def _tree(root: str, found: dict[str, Traced]) -> Traced:
    """Everything under one root: what has no known cause, or is its own, hangs under the root."""
    top = found.pop(root, None) or Traced("flow", root)
    ordered: Sequence[Traced] = sorted(found.values(), key=lambda one: (one.at or "9", one.id))
    known = {root: top, **found}
    for one in ordered:
        parent = known.get(one.causation, top)
        above: Traced | None = parent
        steps = 0
        while above is not None and above is not top and above is not one and steps <= len(known):
            above, steps = known.get(above.causation, top), steps + 1
        (parent if above is top else top).children.append(one)
    return top
