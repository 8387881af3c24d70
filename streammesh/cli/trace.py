"""`trace` and `events`: what one thing caused, as a tree; and what happens in the mesh, as it happens."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from streammesh.cli.output import Output, clean
from streammesh.cli.parameters import DURATION
from streammesh.cli.session import command

if TYPE_CHECKING:
    from streammesh.mesh import Mesh
    from streammesh.tracing import Traced

__all__ = ["events_command", "trace_command"]

BAD = frozenset(("failed", "dead", "died", "boundary", "not_understood", "expired", "cancelled", "stuck"))


@command(epilog="Example: streammesh trace digest-17 --json | jq '.. | select(.error?) | .error'")
@click.argument("correlation")
async def trace(mesh: Mesh, out: Output, correlation: str) -> int:
    """Show everything that one task, message or run caused, as one tree: tasks, messages, runs, votes, auctions.

    CORRELATION is the id of what began it, or of a task or run somewhere in it. Exit code 4 when nothing is known of it.
    """
    from streammesh.tracing import Traces

    top = await Traces(mesh.store, mesh.keys).read(correlation)
    if out.json:
        out.object(top.json())
    elif out.quiet:
        for one in top.walk():
            out.line(one.id)
    else:
        _show(out, top)
    return 0


def _show(out: Output, top: Traced) -> None:
    stack: list[tuple[Traced, str, str]] = [(top, "", "")]
    while stack:
        one, lead, below = stack.pop()
        state = out.style(one.state, fg="red") if one.state in BAD else out.state(one.state)
        to = one.to.removeprefix("agent ") if one.kind == "message" else ""
        who = " ".join(dict.fromkeys(one.agents)) or to
        parts = [
            out.style(one.kind, bold=True),
            clean(one.name),
            clean(one.id),
            state,
            f"on {clean(who)}" if who else "",
        ]
        error = f": {clean(one.error)}" if one.error else ""
        out.line(lead + "  ".join(part for part in parts if part) + error)
        for number, child in reversed(list(enumerate(one.children))):
            last = number == len(one.children) - 1
            stack.append((child, below + ("└─ " if last else "├─ "), below + ("   " if last else "│  ")))


@command(epilog="Example: streammesh events --follow --type boundary.reached --json")
@click.option("--follow", "-f", is_flag=True, help="Go on with new events, until interrupted.")
@click.option(
    "--type", "-t", "kind", metavar="TYPE", help="Only of this type, such as task.dead; `task.` means all of tasks."
)
@click.option("--correlation", metavar="ID", help="Only of this flow.")
@click.option("--capability", "-c", metavar="NAME", help="Only of this capability.")
@click.option(
    "--since", type=DURATION, metavar="DURATION", help="Begin with events so long ago (default: all that are kept)."
)
async def events(
    mesh: Mesh, out: Output, follow: bool, kind: str | None, correlation: str | None, capability: str | None,
    since: float | None,
) -> None:  # fmt: skip
    """Print what happened in the mesh: deaths, retries, cancels, votes, auctions, boundaries. About 10,000 are kept.

    With --follow and without --since, only what happens from now on.
    """
    from streammesh.cli.tailing import events as tail

    await tail(mesh, out, capability, since, follow, kind=kind, correlation=correlation)


trace_command = trace
events_command = events
