"""Why a task is not running, or what became of it: one causal line, from what the server knows now."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from itertools import product
from typing import Any

from streammesh.errors import TaskNotFound
from streammesh.keys import GROUP, LANES, Keys, check_id, raw_tag
from streammesh.moments import duration
from streammesh.record import Record, State
from streammesh.registry import AgentInfo, Registry
from streammesh.status import Status, fields_of
from streammesh.store import Store

__all__ = ["Cause", "Causes"]

#: How far back the members feed and the entries before a task are looked at.
BACK = 1000
AHEAD = 100


@dataclass(frozen=True, slots=True)
class Cause:
    """``word`` is stable and for programs, ``text`` is for people, ``state`` the task's.

    Words: finished rejected dead cancelled expired · running lease_lost cancelling · due delayed retry · paused nobody
    draining busy inbox soon.
    """

    id: str
    state: State
    word: str
    text: str


class Causes:
    """Explains the tasks of one mesh. Read-only."""

    def __init__(self, store: Store, keys: Keys) -> None:
        self._store = store
        self._keys = keys
        self._registry = Registry(store, keys)
        self._status = Status(store, keys)

    async def explain(self, id: str) -> Cause:
        """The cause of the task's state. Raises TaskNotFound."""
        flat = await self._store.command("HGETALL", self._keys.task(check_id(id, "task id")))
        fields: Mapping[str, str] = fields_of(flat) or await self._unclaimed(id)
        if not fields:
            raise TaskNotFound(
                f"there is no task {id}: never enqueued in this mesh, or finished longer ago than its retention", id=id
            )
        record = Record(id, fields)
        now = await self._status.now_ms()
        if record.state.final:
            word, text = _finished(record, now)
        elif record.state is State.RUNNING:
            word, text = await self._running(record, now)
        elif record.state is State.DELAYED:
            word, text = await self._delayed(record, now)
        else:
            word, text = await self._queued(record, now)
        return Cause(id, record.state, word, text)

    async def _unclaimed(self, id: str) -> dict[str, Any]:
        """A task that came by a bare XADD has no record before it is claimed: look for its entry."""
        tag, _, entry = id.partition("-")
        for name in await self._status.names() if entry else ():
            for lane, shard in product(LANES, range(self._keys.shards)):
                stream = self._keys.tasks(name, lane, shard)
                if tag != raw_tag(stream, shard):
                    continue
                try:
                    got = await self._store.command("XRANGE", stream, entry, entry)
                except Exception:
                    # What follows the dash is no entry id, so it is no such task either.
                    continue
                if got:
                    return {
                        "state": "queued",
                        "capability": name,
                        "entry": entry,
                        "enqueued_at": entry.partition("-")[0],
                    }
        return {}

    # -- running

    async def _running(self, record: Record, now: int) -> tuple[str, str]:
        holder = record.agent
        key = self._keys.agent(holder)
        left, beat = await self._store.commands([("PTTL", key), ("ZSCORE", self._keys.agents, holder)])
        for_long = duration(_age(record, "started_at", now))
        if left > 0:
            silent = f", last beat {duration((now - float(beat)) / 1000)} ago" if beat else ""
            text = f"on {holder} for {for_long} (attempt {record.attempt}{silent})"
            if record.fields.get("cancel"):
                return "cancelling", f"{text}; asked to stop by {record.fields['cancel']}"
            return (
                "running",
                f"{text}; its lease is renewed as long as {holder} beats, else held for {duration(left / 1000)}",
            )
        others = await self._able(record)
        then = "the next sweep gives it to another agent" if others else f"and {await self._nobody(record, now)}"
        silent = f" {duration((now - float(beat)) / 1000)} ago" if beat else ""
        return (
            "lease_lost",
            f"lease lost: {holder}, which ran it (attempt {record.attempt}), beat last{silent or ' long ago'}; {then}",
        )

    # -- delayed

    async def _delayed(self, record: Record, now: int) -> tuple[str, str]:
        due = float(record.fields.get("due", now))
        retry = "failures" in record.fields or record.error
        why = f"after error in attempt {record.attempt}: {record.error}" if retry else "as it was asked to"
        if due <= now:
            anybody = await self._registry.agents()
            when = f"is due since {duration((now - due) / 1000)}"
            return (
                "due",
                f"{when}, {'an agent is about to queue it' if anybody else 'but no live agent is there to queue it'}; {why}",
            )
        what = "next attempt in" if retry else "starts in"
        return "retry" if retry else "delayed", f"{what} {duration((due - now) / 1000)}, {why}"

    # -- queued

    async def _queued(self, record: Record, now: int) -> tuple[str, str]:
        waited = f"waiting {duration(_age(record, 'enqueued_at', now))}: "
        capability, to = record.capability, record.fields.get("to")
        if to:
            return "inbox", waited + await self._in_inbox(to, record)
        paused = await self._store.command("HGET", self._keys.cap(capability), "paused")
        if paused:
            return (
                "paused",
                waited + f"capability {capability} is paused by {paused}{await self._since(capability, now)}",
            )
        able = await self._able(record)
        if not able:
            return "nobody", waited + await self._nobody(record, now)
        open_ones = [agent for agent in able if agent.state == "ready"]
        if not open_ones:
            names = ", ".join(sorted(agent.id for agent in able)[:4])
            return "draining", waited + f"only agents that take no new work offer {capability}: {names}"
        busy, slots = sum(agent.busy for agent in open_ones), sum(agent.slots for agent in open_ones)
        ahead = await self._ahead(record)
        if busy >= slots:
            who = f"all {len(open_ones)} agents are" if len(open_ones) > 1 else f"its one agent {open_ones[0].id} is"
            return "busy", waited + f"{who} busy ({busy} of {slots} slots), {ahead} before it"
        return "soon", waited + f"{slots - busy} of {slots} slots are free, {ahead} before it; it should start at once"

    async def _in_inbox(self, to: str, record: Record) -> str:
        agent = next((one for one in await self._registry.agents() if one.id == to), None)
        if agent is None:
            return f"it is for {to}, which is gone; a sweep moves it to another agent that offers {record.capability}"
        if agent.busy >= agent.slots:
            return f"it is for {to}, which is busy ({agent.busy} of {agent.slots} slots)"
        return f"it is for {to}, which is {agent.state} with {agent.slots - agent.busy} free slots; it should start at once"

    async def _able(self, record: Record) -> list[AgentInfo]:
        return [agent for agent in await self._registry.agents() if record.capability in agent.capabilities]

    async def _since(self, capability: str, now: int) -> str:
        for entry, flat in await self._store.command("XREVRANGE", self._keys.control, "+", "-", "COUNT", BACK):
            act = fields_of(flat)
            if act.get("type") == "pause" and act.get("capability") == capability:
                return f" {duration((now - int(entry.partition('-')[0])) / 1000)} ago"
        return ""

    async def _ahead(self, record: Record) -> str:
        """How many entries wait before this one, in its lane."""
        shard = self._keys.shard_of(record.id)
        stream = self._keys.tasks(record.capability, record.fields.get("priority", "normal"), shard)
        groups = await self._store.command("XINFO", "GROUPS", stream)
        last = next(
            (group["last-delivered-id"] for flat in groups if (group := fields_of(flat)).get("name") == GROUP), "0-0"
        )
        before = await self._store.command(
            "XRANGE", stream, f"({last}", f"({record.fields.get('entry', last)}", "COUNT", AHEAD
        )
        return (
            f"more than {AHEAD - 1} tasks"
            if len(before) >= AHEAD
            else f"{len(before)} tasks"
            if len(before) != 1
            else "1 task"
        )

    async def _nobody(self, record: Record, now: int) -> str:
        """That no live agent offers it, and what became of the last one that did."""
        capability = record.capability
        text = f"no live agent offers {capability}"
        members = await self._store.command("SMEMBERS", self._keys.cap_agents(capability))
        scores = await self._store.commands([("ZSCORE", self._keys.agents, member) for member in members])
        silent = [(float(score), member) for member, score in zip(members, scores, strict=True) if score]
        if silent:
            # Agents bury each other; the last one to die is not buried by anybody.
            beat, member = max(silent)
            return f"{text} (last: {member}, silent for {duration((now - beat) / 1000)})"
        without: dict[str, str] = {}
        for entry, flat in await self._store.command("XREVRANGE", self._keys.members, "+", "-", "COUNT", BACK):
            event = fields_of(flat)
            agent, ago = event.get("agent", ""), duration((now - int(entry.partition("-")[0])) / 1000)
            if capability in event.get("capabilities", "").split():
                if event.get("type") in ("died", "left"):
                    return f"{text} (last: {agent}, {event['type']} {ago} ago)"
                if agent in without:
                    return f"{text} (last: {agent}, which withdrew it {without[agent]} ago)"
            elif event.get("type") == "changed":
                without[agent] = ago
        return text


def _finished(record: Record, now: int) -> tuple[str, str]:
    ended = _age(record, "finished_at", now)
    ago = f"{duration(ended)} ago"
    began = _age(record, "started_at", now)
    on = f" on {record.agent}" if record.agent else ""
    match record.state:
        case State.SUCCEEDED:
            took = f" after {duration(began - ended)}" if began is not None and ended is not None else ""
            return "finished", f"{ago}{on}{took} (attempt {record.attempt})"
        case State.FAILED:
            return "rejected", f"its handler rejected it {ago}{on}: {record.error}"
        case State.CANCELLED:
            return "cancelled", f"{record.error or 'cancelled'}, {ago}"
        case State.EXPIRED:
            return "expired", f"{record.error or 'its deadline passed'}, {ago}"
        case _:
            word = record.fields.get("reason", "dead")
            failures = int(record.fields.get("failures", 0)) + 1
            reason = {"attempts": f"it failed {failures} times", "failed": "it failed, and is not to be retried"}.get(
                word, word.replace("_", " ")
            )
            return "dead", f"{reason}: {record.error}; {ago}, kept for `streammesh dead replay {record.id}`"


def _age(record: Record, name: str, now: int) -> float | None:
    """Seconds since the point in time in that field."""
    text = record.fields.get(name, "")
    try:
        ms = float(text) if text.isdigit() else datetime.fromisoformat(text).timestamp() * 1000
    except ValueError:
        return None
    return max(0.0, (now - ms) / 1000)
