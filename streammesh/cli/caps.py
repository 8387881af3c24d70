"""`caps`: what this mesh can do, and a brake for each of it."""

from __future__ import annotations

import difflib
from typing import TYPE_CHECKING

import click

from streammesh.cli.endings import Missing
from streammesh.cli.output import Output
from streammesh.cli.session import Noun, command

if TYPE_CHECKING:
    from streammesh.mesh import Mesh

__all__ = ["caps_command"]


@click.group("caps", cls=Noun)
def caps_command() -> None:
    """The capabilities of this mesh; pause and resume them."""


@command(caps_command)
async def ls(mesh: Mesh, out: Output) -> None:
    """List every capability that was ever used: who offers it, what it takes."""
    numbers = {one.capability: one for one in await mesh.status.capabilities()}
    cards = await mesh.registry.capabilities()
    if out.json:
        for name, card in cards.items():
            one = numbers[name]
            known = {key: text for key, text in card.items() if key != "paused"}
            out.lines([{"capability": name, "agents": one.agents, "paused_by": one.paused_by or None, **known}])
    elif out.quiet:
        for name in cards:
            out.line(name)
    elif cards:
        rows = []
        for name, card in cards.items():
            one = numbers[name]
            state = f"‖ paused by {one.paused_by}" if one.paused_by else "" if one.agents else "! nobody"
            rows.append((name, str(one.agents), state, card.get("takes", "?"), card.get("description", "")))
        out.table(("CAPABILITY", "AGENTS", "", "TAKES", "DESCRIPTION"), rows, right=["AGENTS"])
    else:
        out.note("no capabilities yet; start an agent: streammesh agent --app MODULE:AGENT")


async def _known(mesh: Mesh, names: tuple[str, ...]) -> None:
    """Raises Missing for a capability that nobody ever used, before anything is done."""
    known = await mesh.status.names()
    for name in names:
        if name not in known:
            close = difflib.get_close_matches(name, known, n=1)
            hint = f"did you mean {close[0]}?" if close else f"known: {', '.join(known) or 'none'}"
            raise Missing(f"this mesh has no capability {name}; {hint}")


@command(caps_command)
@click.argument("capabilities", metavar="CAPABILITY...", nargs=-1, required=True)
@click.option("--by", default="cli", metavar="WHO", help="Who asks; `info` and `task explain` show it.")
async def pause(mesh: Mesh, out: Output, capabilities: tuple[str, ...], by: str) -> None:
    """Let no agent begin tasks of CAPABILITY; running ones finish, new ones wait."""
    await _known(mesh, capabilities)
    for name in capabilities:
        fresh = await mesh.pause(name, by=by)
        out.lines([{"capability": name, "paused": True, "changed": fresh}]) if out.json else out.line(name)
        if not fresh:
            out.note(f"{name} was paused already")


@command(caps_command)
@click.argument("capabilities", metavar="CAPABILITY...", nargs=-1, required=True)
@click.option("--by", default="cli", metavar="WHO", help="Who asks; kept in the control stream.")
async def resume(mesh: Mesh, out: Output, capabilities: tuple[str, ...], by: str) -> None:
    """End a pause."""
    await _known(mesh, capabilities)
    for name in capabilities:
        was = await mesh.resume(name, by=by)
        out.lines([{"capability": name, "paused": False, "changed": was}]) if out.json else out.line(name)
        if not was:
            out.note(f"{name} was not paused")
