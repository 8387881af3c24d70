"""Why a run does not move, or what became of it: one causal line, from what the server knows now."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from streammesh.causes import Causes
from streammesh.errors import TaskNotFound
from streammesh.journal import Head
from streammesh.keys import Keys
from streammesh.moments import duration
from streammesh.registry import Registry
from streammesh.runlist import RunList, offered_by, stream_of
from streammesh.status import Status, fields_of
from streammesh.steps import RunSteps, Steps, Wait
from streammesh.store import Store

__all__ = ["RunCause", "RunCauses", "waited"]

#: How far back the audit tail is looked at.
BACK = 1000


@dataclass(frozen=True, slots=True)
class RunCause:
    """``word`` is stable and for programs, ``text`` is for people, ``state`` the run's.

    Words: finished failed cancelled · running lease_lost · signal call timer child idle (what a parked one waits for) ·
    nobody soon · stuck · paused.
    """

    id: str
    state: str
    word: str
    text: str


class RunCauses:
    """Explains the runs of one mesh. Read-only."""

    def __init__(self, store: Store, keys: Keys) -> None:
        self._store = store
        self._keys = keys
        self._registry = Registry(store, keys)
        self._status = Status(store, keys)
        self._steps = Steps(store, keys)
        self._tasks = Causes(store, keys)
        self._list = RunList(store, keys)

    async def explain(self, id: str) -> RunCause:
        """The cause of the run's state. Raises RunNotFound."""
        return await self.judge(await self._steps.read(id))

    async def judge(self, run: RunSteps) -> RunCause:
        """The same for a run that has been read."""
        head, now = run.head, await self._status.now_ms()
        match head.state:
            case "succeeded" | "failed" | "cancelled":
                word, text = _ended(run, now)
            case "running":
                word, text = await self._running(run, now)
            case "queued":
                word, text = await self._queued(head, run, now)
            case "stuck":
                word = "stuck"
                text = f"{head.fields.get('error', '')}; mend the code, then: streammesh run resume {head.id}"
            case "paused":
                since = await self._since(head, now)
                word, text = "paused", f"paused by {head.fields.get('paused', 'somebody')}{since}; streammesh run resume {head.id}"  # fmt: skip
            case _:
                word, text = await self._parked(run, now)
        return RunCause(head.id, head.state, word, text)

    async def _running(self, run: RunSteps, now: int) -> tuple[str, str]:
        holder = run.head.fields.get("agent", "")
        attempt = run.head.fields.get("attempt", "1")
        left, beat = await self._store.commands(
            [("PTTL", self._keys.agent(holder)), ("ZSCORE", self._keys.agents, holder)]
        )
        silent = f"{duration((now - float(beat)) / 1000)} ago" if beat else "long ago"
        if left > 0:
            return "running", f"on {holder} (activation {attempt}, last beat {silent})"
        able = await self._able(stream_of(run.head))
        then = "the next sweep gives it to another agent" if able else f"and no live agent has {_named(run.head)}"
        return "lease_lost", f"lease lost: {holder}, which executed it, beat last {silent}; {then}"

    async def _queued(self, head: Head, run: RunSteps, now: int) -> tuple[str, str]:
        entry = head.fields.get("entry", "").partition("-")[0]
        since = f"since {duration((now - int(entry)) / 1000)}: " if entry.isdigit() else ""
        name = stream_of(head)
        if not await self._able(name):
            others = [
                (one, agent.id)
                for agent in await self._registry.agents()
                for one in offered_by(agent)
                if one.partition("@")[0] == head.workflow
            ]
            versions = sorted(f"version {one.partition('@')[2] or 1} on {id}" for one, id in others)[:4]
            instead = f" (there is {', '.join(versions)})" if versions else ""
            return "nobody", f"{since}no live agent has {_named(head)}{instead}"
        queued, running = await self._list.waiting([name])
        before = max(0, queued[name] - 1)
        return "soon", f"{since}{running[name]} of {name} run, {before} others wait; it should go on at once"

    async def _able(self, name: str) -> list[str]:
        return [agent.id for agent in await self._registry.agents() if name in offered_by(agent)]

    async def _since(self, head: Head, now: int) -> str:
        events = self._keys.events(self._keys.shard_of(head.id))
        for entry, flat in await self._store.command("XREVRANGE", events, "+", "-", "COUNT", BACK):
            event = fields_of(flat)
            if event.get("type") == "run.pause" and event.get("run") == head.id:
                return f" {duration((now - int(entry.partition('-')[0])) / 1000)} ago"
        return ""

    # -- parked

    async def _parked(self, run: RunSteps, now: int) -> tuple[str, str]:
        if not run.waits:
            return "idle", "it waits for nothing that could come: only a signal or a cancellation moves it"
        parts = [waited(wait, now) for wait in run.waits if wait.kind != "call"]
        calls = [wait for wait in run.waits if wait.kind == "call"]
        if calls:
            parts.append(await self._calls(calls))
        shown = "; ".join(parts[:4]) + (f"; and {len(parts) - 4} more" if len(parts) > 4 else "")
        return run.waits[0].kind, f"waits for {shown}"

    async def _calls(self, calls: Sequence[Wait]) -> str:
        """The tasks that are waited for, and why the oldest of them is where it is."""
        oldest = min(calls, key=lambda wait: wait.since or 0)
        try:
            cause = await self._tasks.explain(oldest.id)
            why = f"{cause.state}: {cause.text}"
        except TaskNotFound:
            why = "its record is gone"
        if len(calls) == 1:
            return f"{oldest.name} (task {oldest.id}), {why}"
        counts = ", ".join(f"{count} {name}" for name, count in Counter(wait.name for wait in calls).items())
        return f"{len(calls)} tasks ({counts}); the first, {oldest.id}, {why}"


def waited(wait: Wait, now: float) -> str:
    """One thing that is waited for, in words."""
    since = f" since {duration(max(0.0, now - wait.since) / 1000)}" if wait.since is not None else ""
    match wait.kind:
        case "signal":
            return f"signal {wait.name}{since}"
        case "timer":
            left = ((wait.due or now) - now) / 1000
            when = f"in {duration(left)}" if left > 0 else f"due {duration(-left)} ago"
            return f"its timer {wait.path} ({when})"
        case "child":
            return f"child {wait.name} (run {wait.id}){since}"
        case "vote" | "collect" | "auction":
            return f"{wait.kind} {wait.name} ({wait.id}){since}"
        case _:
            return f"{wait.name} at {wait.path}{since}"


def _named(head: Head) -> str:
    return f"version {head.fields.get('version', '1')} of {head.workflow}"


def _ended(run: RunSteps, now: int) -> tuple[str, str]:
    head = run.head
    ago = f"{duration((now - run.last) / 1000)} ago" if run.last is not None else ""
    on = f" on {head.fields['agent']}" if head.fields.get("agent") else ""
    if head.state == "succeeded":
        return "finished", f"{ago}{on}"
    said = head.fields.get("error", "")
    return head.state, f"{said}; {ago}"
