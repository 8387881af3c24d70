"""`agents`: who is here, whether they answer, and how to let them go."""

from __future__ import annotations

import asyncio
import time
from typing import TYPE_CHECKING, Any

import click

from streammesh.cli.endings import Ended, code_of
from streammesh.cli.output import Output
from streammesh.cli.parameters import DURATION
from streammesh.cli.session import Noun, command
from streammesh.moments import duration
from streammesh.peers import Membership

if TYPE_CHECKING:
    from streammesh.mesh import Mesh
    from streammesh.registry import AgentInfo

__all__ = ["agents_command"]

HEADS = ("AGENT", "STATE", "BUSY", "BEAT", "LEASE", "HOST", "PID", "CAPABILITIES")


@click.group("agents", cls=Noun)
def agents_command() -> None:
    """The agents of this mesh. An AGENT is an id (reader.7) or a name (reader: the least busy one of it)."""


@command(agents_command)
@click.option("--capability", "-c", metavar="NAME", help="Only those that offer it.")
@click.option("--gone", type=DURATION, metavar="DURATION", help="Also who left or died in the last so long.")
async def ls(mesh: Mesh, out: Output, capability: str | None, gone: float | None) -> None:
    """List the live agents."""
    found = [one for one in await mesh.agents() if not capability or capability in one.capabilities]
    found.sort(key=lambda one: (one.name, int(one.fields.get("epoch", 0))))
    past = await _gone(mesh, gone, capability) if gone else []
    if out.json:
        out.lines([*(_json(one) for one in found), *past])
        return
    if out.quiet:
        for one in found:
            out.line(one.id)
        return
    now = await mesh.status.now_ms()
    rows = [
        (
            one.id, one.state, f"{one.busy}/{one.slots}", f"{duration(one.age)} ago", f"{one.fields.get('lease', '?')}s",
            one.fields.get("host", ""), one.fields.get("pid", ""), " ".join(one.capabilities),
        )
        for one in found
    ]  # fmt: skip
    rows += [
        (one["id"], one["state"], "-", out.moment(one["at"], now), "-", "", "", one["capabilities"]) for one in past
    ]
    if rows:
        out.table(HEADS, rows, right=["BUSY", "PID"])
    else:
        out.note("no live agents; start one: streammesh agent --app MODULE:AGENT")


async def _gone(mesh: Mesh, since: float, capability: str | None) -> list[dict[str, Any]]:
    start = await mesh.status.now_ms() - int(since * 1000)
    past = []
    for _, flat in await mesh.store.command("XRANGE", mesh.keys.members, start, "+"):
        event = dict(zip(flat[::2], flat[1::2], strict=True))
        offered = event.get("capabilities", "")
        if event.get("type") in ("left", "died") and (not capability or capability in offered.split()):
            past.append(
                {
                    "id": event.get("agent", ""),
                    "state": event["type"],
                    "at": event.get("at", ""),
                    "capabilities": offered,
                }
            )
    return past


def _json(one: AgentInfo) -> dict[str, Any]:
    fields = {
        name: int(text) if name in ("pid", "epoch") and text.isdigit() else text for name, text in one.fields.items()
    }
    return {
        "id": one.id, "state": one.state, "name": one.name, "busy": one.busy, "slots": one.slots,
        "beat_seconds_ago": round(one.age, 3), **{name: text for name, text in fields.items() if name not in ("busy", "slots")},
        "lease": float(one.fields.get("lease", 0)), "capabilities": list(one.capabilities), "types": list(one.types),
        "workflows": one.fields.get("workflows", "").split(),
    }  # fmt: skip


@command(agents_command)
@click.argument("agent")
async def show(mesh: Mesh, out: Output, agent: str) -> None:
    """Everything about one agent: its card, and what it holds."""
    one = await mesh.registry.resolve(agent)
    holds = await _held(mesh, one)
    skills = (await mesh.registry.card(one.id))["skills"]
    if out.json:
        out.object({**_json(one), "holds": holds, "skills": skills})
        return
    now = await mesh.status.now_ms()
    first = ("state", "name", "epoch", "busy", "slots", "lease", "capabilities", "workflows", "types")
    rest = sorted(name for name in one.fields if name not in (*first, "boot", "skills"))
    pairs = [(name, one.fields.get(name)) for name in (*first, *rest)]
    shown = [(name, out.moment(text, now) if name.endswith("_at") else text) for name, text in pairs]
    listed = "\n".join(f"{skill['id']}  [{', '.join(skill['tags'][1:])}]  {skill['description']}" for skill in skills)
    out.pairs([("id", one.id), *shown, ("skills", listed), ("holds", "\n".join(holds) or "nothing")])


@command(agents_command)
@click.argument("agent")
async def card(mesh: Mesh, out: Output, agent: str) -> None:
    """The agent's card as A2A writes it (AgentCard JSON): name, skills, modes; its url is an address in this mesh."""
    out.object(await mesh.registry.card(agent))


@command(agents_command)
@click.option("--since", metavar="PLACE", default="0-0", help="Only what came after this place of the feed.")
async def members(mesh: Mesh, out: Output, since: str) -> None:
    """Who joined, changed, left and died, in order; each line begins with its place in the feed."""
    rows = [
        Membership.read(place, dict(zip(flat[::2], flat[1::2], strict=True)))
        for place, flat in await mesh.store.command("XRANGE", mesh.keys.members, f"({since}", "+")
    ]
    if out.json:
        out.lines(
            [
                {
                    "cursor": one.cursor, "type": one.type, "agent": one.agent, "reason": one.reason, "at": one.at,
                    "capabilities": list(one.capabilities),
                }
                for one in rows
            ]
        )  # fmt: skip
    elif rows:
        out.table(
            ("PLACE", "WHAT", "AGENT", "REASON", "CAPABILITIES"),
            [(one.cursor, one.type, one.agent, one.reason, " ".join(one.capabilities)) for one in rows],
        )
    else:
        out.note("nobody joined or left since then")


async def _held(mesh: Mesh, one: AgentInfo, limit: int = 100) -> list[str]:
    """The ids of the tasks that it runs."""
    from streammesh.listing import Listing
    from streammesh.record import State

    held: list[str] = []
    for capability in one.capabilities:
        listed = await Listing(mesh.store, mesh.keys).tasks({State.RUNNING}, capability, limit)
        held += [record.id for record in listed.records if record.agent == one.id]
    return held


@command(agents_command)
@click.argument("agents", metavar="[AGENT]...", nargs=-1)
@click.option("--timeout", type=DURATION, default="5s", show_default=True, help="How long to wait for an answer.")
async def ping(mesh: Mesh, out: Output, agents: tuple[str, ...], timeout: float) -> int:
    """Ask agents (all, unless named) for a sign of life through their inbox, and time the way there and back.

    Exits 1 when one does not answer.
    """
    from streammesh.errors import MeshError, MessageError

    ids = [(await mesh.registry.resolve(agent)).id for agent in agents] or sorted(one.id for one in await mesh.agents())
    if not ids:
        raise Ended("no live agents to ask; start one: streammesh agent --app MODULE:AGENT", 4)

    async def ask(id: str) -> tuple[str, float | None, str, int]:
        began = time.perf_counter()
        try:
            # The first one opens the connections that answers come by; the second one tells the agent's time.
            await mesh.messages.request(id, "ping", None, timeout)
            began = time.perf_counter()
            await mesh.messages.request(id, "ping", None, timeout)
        except (MessageError, MeshError) as error:
            return id, None, str(error), code_of(error)
        return id, (time.perf_counter() - began) * 1000, "", 0

    answers = await asyncio.gather(*(ask(id) for id in ids))
    for id, took, error, _ in answers:
        if out.json:
            out.lines(
                [
                    {
                        "id": id,
                        "ok": took is not None,
                        "ms": took and round(took, 3),
                        **({"error": error} if error else {}),
                    }
                ]
            )
        else:
            out.line(
                f"{id}  {took:.1f} ms" if took is not None else f"{id}  {out.style('no answer', fg='red')}: {error}"
            )
    return max((code and 1 for _, _, _, code in answers), default=0)


@command(agents_command)
@click.argument("ids", metavar="ID...", nargs=-1, required=True)
async def evict(mesh: Mesh, out: Output, ids: tuple[str, ...]) -> None:
    """Take agents out that hang: what they hold goes to others at once, and they are stopped when they beat again.

    By id only (reader.7). Prefer drain for an agent that answers: an evicted one finishes nothing.
    """
    for id in ids:
        await mesh.registry.evict(id, by="cli")
        out.lines([{"id": id, "state": "evicted"}]) if out.json else out.line(id if out.quiet else f"{id}  evicted")


@command(agents_command)
@click.argument("agents", metavar="AGENT...", nargs=-1, required=True)
@click.option("--wait", "waits", is_flag=True, help="Wait until they have left.")
@click.option("--timeout", type=DURATION, metavar="DURATION", help="With --wait: at most so long (exit 5).")
async def drain(mesh: Mesh, out: Output, agents: tuple[str, ...], waits: bool, timeout: float | None) -> int:
    """Let agents finish what they run and leave; what they have not begun goes to others at once."""
    from streammesh.cli.tailing import entries_after, last_of

    members = mesh.keys.members
    last = await last_of(mesh, members)
    # All names first: a typo must not leave half of them draining.
    ids = [(await mesh.registry.resolve(agent)).id for agent in agents]
    for id in ids:
        await mesh.registry.drain(id, by="cli")
    left: dict[str, str] = {}
    if waits:
        try:
            async with asyncio.timeout(timeout):
                async for _, event in entries_after(mesh, members, last):
                    if event.get("type") in ("left", "died") and event.get("agent") in ids:
                        left[event["agent"]] = event["type"]
                    if len(left) == len(set(ids)):
                        break
        except TimeoutError:
            pass
    for id in ids:
        state = left.get(id, "draining")
        out.lines([{"id": id, "state": state}]) if out.json else out.line(
            id if out.quiet else f"{id}  {out.state(state)}"
        )
    if waits and len(left) < len(set(ids)):
        raise Ended(f"still draining after {duration(timeout)}: {', '.join(id for id in ids if id not in left)}", 5)
    return 0
