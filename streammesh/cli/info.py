"""`info` and `top`: one screen about the mesh, once or live."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import click

from streammesh.cli.gossip import convergence, gossip_line
from streammesh.cli.output import Output
from streammesh.cli.parameters import DURATION
from streammesh.cli.session import command
from streammesh.moments import duration

if TYPE_CHECKING:
    from streammesh.mesh import Mesh
    from streammesh.runlist import RunNumbers
    from streammesh.status import CapabilityStatus, Overview, Rates

__all__ = ["info_command", "top_command"]

HEADS = ("CAPABILITY", "WAITING", "RUNNING", "DELAYED", "DEAD", "OLDEST", "IN/s", "OUT/s", "AGENTS", "")


@command(epilog="WAITING is exact. IN/s and OUT/s are measured during --sample; --sample 0 leaves them out.")
@click.option("--sample", type=DURATION, default="500ms", show_default=True, help="How long to measure the rates.")
@click.option("--all", "everything", is_flag=True, help="Also capabilities with nothing to do and nobody to do it.")
async def info(mesh: Mesh, out: Output, sample: float, everything: bool) -> None:
    """One screen: server, agents, and how every capability is doing."""
    first = await mesh.status.overview()
    if sample and first.capabilities:
        await asyncio.sleep(sample)
        second = await mesh.status.overview()
        rates: dict[str, Rates] | None = second.rates(first)
    else:
        second, rates = first, None
    server = await server_of(mesh)
    runs = await mesh.runlist.numbers()
    if out.json:
        out.object(as_json(mesh, server, second, rates, runs))
        return
    if out.quiet:
        for one in second.capabilities:
            out.line(one.capability)
        return
    out.line(headline(mesh, server, second))
    shown = [one for one in second.capabilities if everything or not one.idle]
    if shown:
        out.table(HEADS, [row(one, rates) for one in shown], right=HEADS[1:9])
    elif not runs.any:
        out.line("nothing here yet: start an agent (streammesh agent --app …) or enqueue a task (streammesh enqueue …)")
    if tail := footer(second):
        out.line(tail)
    if runs.any:
        out.line(runs_line(runs))
    if line := await _schedules_line(mesh, second):
        out.line(line)
    if line := gossip_line(second.agents):
        out.line(line)


def runs_line(runs: RunNumbers) -> str:
    """``runs: 2 running · 120 parked · 4 queued (! 1 digest@2, which no live agent has) · 1 stuck``"""
    nobody = ", ".join(f"{count} {name}" for name, count in runs.nobody.items())
    remarks = {"queued": f" (! {nobody}, which no live agent has)" if nobody else ""}
    more = "" if runs.complete else "+"
    parts = [
        f"{runs.states[state]}{more if state in ('parked', 'paused', 'stuck') else ''} {state}{remarks.get(state, '')}"
        for state in ("running", "parked", "queued", "paused", "stuck")
        if runs.states[state] or state != "paused"
    ]
    return "runs: " + " · ".join(parts)


async def _schedules_line(mesh: Mesh, seen: Overview) -> str:
    """``schedules: 3 active · 1 paused (! morning starts digest, which no live agent has)``; '' where there are none."""
    from collections import Counter

    states = Counter(one.state for one in await mesh.schedules.all())
    nobody = ", ".join(f"{one.name} starts {one.target}" for one in await mesh.schedules.unserved(seen.agents))
    remark = f" (! {nobody}, which no live agent has)" if nobody else ""
    return "schedules: " + " · ".join(f"{states[state]} {state}" for state in sorted(states)) + remark if states else ""


async def server_of(mesh: Mesh) -> dict[str, Any]:
    """Flavour, version and uptime of the server."""
    said = await mesh.store.judge(unsafe=True)
    if not said:
        return {"flavour": "fakeredis", "version": "", "uptime": None}
    flavour = "valkey" if "valkey_version" in said else "redis"
    version = said.get("valkey_version") or said.get("redis_version", "?")
    return {"flavour": flavour, "version": version, "uptime": int(said.get("uptime_in_seconds", 0))}


def headline(mesh: Mesh, server: dict[str, Any], seen: Overview) -> str:
    states = seen.states()
    order = ["ready", *sorted(state for state in states if state != "ready")]
    agents = ", ".join(
        f"{states.get(state, 0)}{' agent' + 's' * (states.get(state, 0) != 1) if not n else ''} {state}"
        for n, state in enumerate(order)
    )
    up = f" · up {duration(server['uptime'])}" if server["uptime"] is not None else ""
    version = f"{server['flavour']} {server['version']}".strip()
    return f"{mesh.namespace} · {mesh.store.where} · {version}{up} · {agents}"


def row(one: CapabilityStatus, rates: dict[str, Rates] | None) -> Sequence[str]:
    rate = (rates or {}).get(one.capability)
    remark = ""
    if one.paused_by:
        remark = f"‖ paused by {one.paused_by}"
    elif not one.agents and (one.waiting or one.delayed or one.running):
        remark = "! no live agent offers this"
    return (
        one.capability, str(one.waiting), str(one.running), str(one.delayed), str(one.dead), duration(one.oldest) or "-",
        _rate(rate.entered if rate else None), _rate(rate.left if rate else None), str(one.agents), remark,
    )  # fmt: skip


def footer(seen: Overview) -> str:
    parts = []
    if seen.next_due is not None:
        parts.append(f"next delayed task in {duration(seen.next_due)}")
    if seen.unsorted:
        parts.append(f"{seen.unsorted} more delayed tasks, not told apart")
    if seen.refused:
        parts.append(
            "boundaries of flows: " + ", ".join(f"{guard} {count}" for guard, count in sorted(seen.refused.items()))
        )
    if seen.inboxes:
        parts.append(f"{seen.inboxes} waiting in inboxes of agents")
    return " · ".join(parts)


def _rate(value: float | None) -> str:
    return "-" if value is None else f"{value:.1f}" if value < 1000 else f"{value:.0f}"


def as_json(
    mesh: Mesh, server: dict[str, Any], seen: Overview, rates: dict[str, Rates] | None, runs: RunNumbers
) -> dict[str, Any]:
    """The same numbers for programs."""
    return {
        "mesh": mesh.namespace,
        "url": mesh.store.where,
        "server": server,
        "at_ms": seen.now_ms,
        "agents": seen.states(),
        "capabilities": {
            one.capability: {
                "waiting": one.waiting, "running": one.running, "delayed": one.delayed, "dead": one.dead,
                "oldest_seconds": one.oldest, "agents": one.agents, "paused_by": one.paused_by or None,
                "in_per_second": _rounded(rates, one.capability, "entered"),
                "out_per_second": _rounded(rates, one.capability, "left"),
            }
            for one in seen.capabilities
        },
        "delayed": seen.delayed,
        "next_due_seconds": seen.next_due,
        "inboxes_waiting": seen.inboxes,
        "refused": dict(seen.refused),
        "gossip": convergence(one.fields.get("root", "") for one in seen.agents),
        "runs": {**runs.states, "nobody": dict(runs.nobody), "complete": runs.complete},
    }  # fmt: skip


def _rounded(rates: dict[str, Rates] | None, capability: str, which: str) -> float | None:
    rate = (rates or {}).get(capability)
    return None if rate is None else round(getattr(rate, which), 2)


@command(epilog="Ctrl-C ends it. Without a terminal: one table (or with --json one object) at each interval.")
@click.option("--interval", type=DURATION, default="1s", show_default=True, help="How often to look.")
@click.option("--count", type=click.IntRange(1), metavar="N", help="End after so many looks.")
async def top(mesh: Mesh, out: Output, interval: float, count: int | None) -> None:
    """The same screen, live, with the agents."""
    server = await server_of(mesh)
    earlier = await mesh.status.overview()
    draw = _live(out)
    try:
        number = 0
        while count is None or number < count:
            await asyncio.sleep(max(0.1, interval))
            seen = await mesh.status.overview()
            rates = seen.rates(earlier)
            runs = await mesh.runlist.numbers()
            server["uptime"] = None if server["uptime"] is None else server["uptime"] + interval
            if out.json:
                out.lines([as_json(mesh, server, seen, rates, runs)])
            else:
                draw(_screen(mesh, out, server, seen, rates, runs))
            earlier = seen
            number += 1
    finally:
        draw(None)


def _screen(
    mesh: Mesh, out: Output, server: dict[str, Any], seen: Overview, rates: dict[str, Rates], runs: RunNumbers
) -> list[str]:
    rows = [row(one, rates) for one in seen.capabilities if not one.idle]
    agents = [
        (one.id, one.state, f"{one.busy}/{one.slots}", _bar(one.busy, one.slots), " ".join(one.capabilities))
        for one in sorted(seen.agents, key=lambda one: one.id)
    ]
    return [
        headline(mesh, server, seen), "", *out.tabular(HEADS, rows, right=HEADS[1:9]), footer(seen),
        *([runs_line(runs)] if runs.any else []), "",
        *out.tabular(("AGENT", "STATE", "BUSY", "", "CAPABILITIES"), agents, right=["BUSY"]),
    ]  # fmt: skip


def _bar(busy: int, slots: int, width: int = 16) -> str:
    full = round(width * min(1.0, busy / max(1, slots)))
    return "█" * full + "·" * (width - full)


def _live(out: Output) -> Any:
    """A function that shows a screen: in place on a terminal, one after the other elsewhere."""

    def plain(lines: list[str] | None) -> None:
        for line in lines or ():
            out.line(line)

    if not out.tty or out.json:
        return plain
    try:
        from rich.live import Live
        from rich.text import Text
    except ImportError:
        return plain
    live = Live(auto_refresh=False, screen=True, transient=True)
    live.start()

    def draw(lines: list[str] | None) -> None:
        if lines is None:
            live.stop()
        else:
            live.update(Text.from_ansi("\n".join(lines)), refresh=True)

    return draw


info_command = info
top_command = top
