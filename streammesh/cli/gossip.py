"""`gossip`: what agents tell each other, whether all know the same, and how it goes between them."""

from __future__ import annotations

import asyncio
import json
from collections import Counter
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any

import click

from streammesh.cli.endings import Missing, Refused
from streammesh.cli.output import Output, clean
from streammesh.cli.parameters import DURATION
from streammesh.cli.session import Noun, command

if TYPE_CHECKING:
    from streammesh.mesh import Mesh
    from streammesh.registry import AgentInfo

__all__ = ["convergence", "gossip_command", "gossip_line"]

CURE = "agents gossip from ten of them on, or with Agent(..., gossip=True)"
DIGEST = ("AGENT", "ROOT", "OWNERS", "BEHIND", "TOMBSTONES", "BEGUN", "EQUAL", "")
PEERS = ("AGENT", "PEER", "LATENCY", "ERRORS", "BREAKER", "SUSPECT")

_within = click.option(
    "--timeout", type=DURATION, default="5s", show_default=True, help="How long to wait for an answer."
)


def convergence(roots: Iterable[str]) -> dict[str, Any] | None:
    """How far agents with these root hashes agree; '' is the root of one that does not gossip. None when nobody gossips."""
    counts = Counter(root for root in roots if root)
    if not counts:
        return None
    return {"agents": counts.total(), "distinct_root_hashes": len(counts), "converged": len(counts) == 1}


def gossip_line(agents: Sequence[AgentInfo]) -> str:
    """``gossip: 10 agents · 1 root hash · converged``, from their cards, so as of their last beats; '' when nobody gossips."""
    found = convergence(one.fields.get("root", "") for one in agents)
    return f"gossip: {_summary(found)}" if found else ""


def _summary(found: dict[str, Any]) -> str:
    agents, hashes = found["agents"], found["distinct_root_hashes"]
    verdict = "converged" if found["converged"] else "not converged"
    return f"{agents} agent{'s' * (agents != 1)} · {hashes} root hash{'es' * (hashes != 1)} · {verdict}"


@click.group("gossip", cls=Noun)
def gossip_command() -> None:
    """What agents tell each other. An AGENT is an id (reader.7) or a name (reader: the least busy one of it)."""


async def _ask(mesh: Mesh, ids: Sequence[str], question: dict[str, Any], timeout: float) -> list[dict[str, Any]]:
    """What each agent answers; {"agent", "error"} of one that does not."""
    from streammesh.errors import MeshError

    async def one(id: str) -> dict[str, Any]:
        try:
            answer = await mesh.messages.request(id, "gossip", question, timeout)
        except MeshError as error:
            return {"agent": id, "error": str(error)}
        return answer if isinstance(answer, dict) else {"agent": id, "error": f"{id} answered {answer!r}"}

    return list(await asyncio.gather(*(one(id) for id in ids)))


async def _ids(mesh: Mesh, agents: Sequence[str]) -> list[str]:
    """The ids of the agents that were named; of all live ones when none was."""
    if agents:
        return list(dict.fromkeys([(await mesh.registry.resolve(agent)).id for agent in agents]))
    ids = sorted(one.id for one in await mesh.agents())
    if not ids:
        raise Missing("no live agents to ask; start one: streammesh agent --app MODULE:AGENT")
    return ids


def _tell_silent(out: Output, answers: Sequence[dict[str, Any]]) -> int:
    """Name those that did not answer; the exit code."""
    silent = [one for one in answers if "error" in one]
    for one in silent:
        out.warn(f"{one['agent']}: {clean(one['error'])}")
    return 1 if silent else 0


def _gossiping(answers: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """Those of the answers that come from agents that gossip. Raises Refused when there are answers, and none of them does."""
    active = [one for one in answers if one.get("active")]
    if not active and any("error" not in one for one in answers):
        off = ", ".join(one["agent"] for one in answers if "error" not in one)
        raise Refused(f"gossip is off at {off}: {CURE}")
    return active


@command(
    gossip_command,
    epilog="BEHIND: of how many owners it knows less than another one does. Agents are asked at the same time, but not in the same moment: "
    "what is being told just now shows as not converged.",
)
@click.argument("agents", metavar="[AGENT]...", nargs=-1)
@_within
async def digest(mesh: Mesh, out: Output, agents: tuple[str, ...], timeout: float) -> int:
    """What agents (all, unless named) know of whom, in versions and hashes, and whether they know the same.

    Exits 1 when one does not answer.
    """
    answers = await _ask(mesh, await _ids(mesh, agents), {"ask": "digest"}, timeout)
    active = _gossiping(answers)
    newest: dict[str, tuple[int, int]] = {}
    for one in active:
        for owner, generation, version, _ in one["owners"]:
            newest[owner] = max(newest.get(owner, (0, 0)), (generation, version))
    found = convergence(one["root"] for one in active)
    rows = []
    for one in answers:
        if not one.get("active"):
            continue
        known = {owner: (generation, version) for owner, generation, version, _ in one["owners"]}
        behind = sorted(owner for owner, place in newest.items() if known.get(owner, (0, 0)) < place)
        rows.append((one, {owner: version for owner, (_, version) in known.items()}, behind))
    off = [one["agent"] for one in answers if one.get("active") is False]
    if out.json:
        numbers = ("root", "tombstones", "begun", "answered", "equal", "resets", "rejected", "unreadable")
        listed = {
            one["agent"]: {**{name: one.get(name) for name in numbers}, "versions": versions, "behind": behind}
            for one, versions, behind in rows
        }
        summary = found or {"agents": 0, "distinct_root_hashes": 0, "converged": None}
        silent = [one["agent"] for one in answers if "error" in one]
        out.object({**summary, "agents": listed, "gossiping": len(listed), "off": off, "silent": silent})
    elif out.quiet:
        for one, _, _ in rows:
            out.line(one["agent"])
    elif found:
        shown = [
            (
                one["agent"], one["root"], str(len(versions)), str(len(behind)), str(one["tombstones"]), str(one["begun"]),
                str(one["equal"]), f"! knows less of {', '.join(behind[:3])}{' …' * (len(behind) > 3)}" if behind else "",
            )
            for one, versions, behind in rows
        ]  # fmt: skip
        out.table(DIGEST, shown, right=DIGEST[2:7])
        out.line(_summary(found))
    if off:
        out.note(f"gossip is off at {', '.join(off)}: {CURE}")
    return _tell_silent(out, answers)


@command(
    gossip_command,
    epilog="LATENCY and ERRORS are of the requests of the last minute (at most 20 of each peer); - where there were none. "
    "Agents observe their peers whether they gossip or not.",
)
@click.argument("agents", metavar="[AGENT]...", nargs=-1)
@_within
async def peers(mesh: Mesh, out: Output, agents: tuple[str, ...], timeout: float) -> int:
    """How it goes between agents (all, unless named) and the peers that they know of.

    Exits 1 when one does not answer.
    """
    answers = await _ask(mesh, await _ids(mesh, agents), {"ask": "peers"}, timeout)
    rows = []
    for one in answers:
        for peer, (*facts, why) in one.get("peers", {}).items():
            latency, errors, broken = facts or (None, None, None)
            breaker = None if broken is None else "open" if broken else "closed"
            rows.append(
                {"agent": one["agent"], "peer": peer, "latency_ms": latency, "error_rate": errors, "breaker": breaker, "suspect": why or None}
            )  # fmt: skip
    if out.json:
        out.lines(rows)
    elif out.quiet:
        for peer in sorted({row["peer"] for row in rows}):
            out.line(peer)
    elif rows:
        shown = [
            (
                row["agent"], row["peer"], "-" if row["latency_ms"] is None else f"{row['latency_ms']:g} ms",
                "-" if row["error_rate"] is None else f"{row['error_rate']:.0%}", row["breaker"] or "-",
                f"! {row['suspect']}" if row["suspect"] else "",
            )
            for row in rows
        ]  # fmt: skip
        out.table(PEERS, shown, right=("LATENCY", "ERRORS"))
    elif not any("error" in one for one in answers):
        out.note("no agent has asked another one, or doubts it")
    return _tell_silent(out, answers)


@command(gossip_command, epilog="Example: streammesh gossip get mood --agent reader.7 --at writer")
@click.argument("key")
@click.option("--agent", metavar="AGENT", help="Whose word (default: that of everybody who tells it).")
@click.option("--at", metavar="AGENT", help="As this agent knows it (default: as each one tells it of itself).")
@_within
async def get(mesh: Mesh, out: Output, key: str, agent: str | None, at: str | None, timeout: float) -> int:
    """What agents tell under KEY. Exits 4 when nobody does, 1 when one does not answer."""
    place = await _ids(mesh, [at]) if at else []
    if not place:
        answers = await _ask(mesh, await _ids(mesh, [agent] if agent else []), {"ask": "get"}, timeout)
        active = _gossiping(answers)
        told = [(one["agent"], one["values"]) for one in active]
    else:
        answers = await _ask(mesh, place, {"ask": "digest"}, timeout)
        known = [owner for one in _gossiping(answers) for owner, *_ in one["owners"]]
        if agent and agent not in known:
            # A name, or nobody; an id that has left meanwhile may still be known there.
            agent = (await mesh.registry.resolve(agent)).id
        owners = [agent] if agent else known
        found = await asyncio.gather(*(_ask(mesh, place, {"ask": "get", "owner": owner}, timeout) for owner in owners))
        answers = [*answers, *(one for ones in found for one in ones if "error" in one)]
        told = [(owner, one.get("values", {})) for owner, (one,) in zip(owners, found, strict=True)]
    said = [(owner, values[key]) for owner, values in told if key in values]
    if out.json:
        out.lines({"agent": owner, "key": key, "value": value} for owner, value in said)
    elif out.quiet:
        for owner, _ in said:
            out.line(owner)
    elif said and agent:
        out.line(clean(out.value(said[0][1]), lines=True))
    elif said:
        out.table(("AGENT", "VALUE"), [(owner, json.dumps(value, ensure_ascii=False)) for owner, value in said])
    code = _tell_silent(out, answers)
    if not said and not code:
        who = f"{agent} tells nothing" if agent else "nobody tells anything"
        raise Missing(f"{who} under {key!r}" + (f", as far as {place[0]} knows" if place else ""))
    return code


@command(
    gossip_command,
    name="set",
    unsafe=False,
    epilog='Example: streammesh gossip set mood \'{"is": "good"}\' --agent reader.7',
)
@click.argument("key")
@click.argument("value")
@click.option("--agent", required=True, metavar="AGENT", help="Who tells it: it becomes a key of this agent's own.")
@_within
async def set_(mesh: Mesh, out: Output, key: str, value: str, agent: str, timeout: float) -> None:
    """Let an agent tell everybody VALUE (JSON; what is no JSON is text) under KEY, until it leaves."""
    from streammesh import codec
    from streammesh.errors import PayloadError
    from streammesh.keys import check_id

    if check_id(key, "gossip key").startswith("mesh."):
        raise click.UsageError(f"{key!r} is the mesh's own; choose a key that does not begin with 'mesh.'")
    try:
        meant = codec.decode(value)
    except PayloadError:
        meant = value
    one = (await mesh.registry.resolve(agent)).id
    # Told to an agent that does not gossip it would be heard of by nobody.
    state = await mesh.messages.request(one, "gossip", {"ask": "get", "key": key}, timeout)
    _gossiping([state])
    await mesh.messages.request(one, "gossip", {"ask": "set", "key": key, "value": meant}, timeout)
    if out.json:
        out.object({"agent": one, "key": key, "value": meant})
    else:
        out.line(one)
