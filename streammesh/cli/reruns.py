"""`run fork`, `run skip`, `run graph`, `run replay`: a part of a run once more, answers for steps that will not come by
themselves, the flow of a run as a drawing, and recorded journals against the code of now."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from streammesh.cli.endings import Ended, Refused
from streammesh.cli.output import Output
from streammesh.cli.parameters import payload_of, read_text
from streammesh.cli.runs import run_command as runs
from streammesh.cli.session import Session, command

if TYPE_CHECKING:
    from streammesh.mesh import Mesh

__all__ = ["run_command"]

#: The group with all of its commands: those of `streammesh.cli.runs`, and the ones below.
run_command = runs


@command(
    run_command,
    unsafe=False,
    epilog="The run that is forked is not touched. Paths are in `run show`. Example: streammesh run fork digest-17 --from summarize.3 --id digest-17b",
)
@click.argument("id")
@click.option("--from", "path", required=True, metavar="PATH", help="The first step that runs anew.")
@click.option(
    "--id", "new", metavar="ID", help="The id of the new run; the same fork again with it makes no second one."
)
@click.option("--input", "given", metavar="JSON|@FILE|-", help="Another input, an object, in place of the old one.")
async def fork(mesh: Mesh, out: Output, id: str, path: str, new: str | None, given: str | None) -> None:
    """Start a new run that keeps what a run did before a step, and does that step and all later ones anew; prints its id."""
    made = await mesh.run(id).fork(path, new, payload_of(given, ()) if given is not None else None)
    if out.json:
        out.object({"id": made.id, "created": made.created, "forked_of": id, "forked_from": path})
    else:
        out.line(made.id)
    if not made.created:
        out.note("it was there already: this fork had been made before")


@command(run_command, epilog="Example: streammesh run skip digest-17 review.0 --result '{\"ok\":true}' --by ada")
@click.argument("id")
@click.argument("path")
@click.option("--result", default="null", show_default=True, metavar="JSON|@FILE|-", help="What the workflow is told.")
@click.option(
    "--by", default="operator", show_default=True, metavar="WHO", help="Who says so; it stands in the journal."
)
async def skip(mesh: Mesh, out: Output, id: str, path: str, result: str, by: str) -> None:
    """Answer an open step of a run in place of whoever works on it; what works on it is taken back, a timer fires."""
    from streammesh import codec

    text = read_text(result, "result") if result == "-" or result.startswith("@") else result
    value: Any = codec.decode(text, what="result of the step")
    word, _, state = (await mesh.run(id).skip(path, value, by=by)).partition(" ")
    if out.json:
        out.object({"id": id, "path": path, "verdict": word})
    if word == "closed":
        raise Refused(f"run {id} has ended already ({state}); fork it: streammesh run fork {id} --from {path}")
    if not out.json:
        out.line(id)
    state = (await mesh.run(id).head()).state
    if state in ("stuck", "paused"):
        out.note(f"it is still {state}: streammesh run resume {id}")


@command(
    run_command,
    epilog="An arrow leads from what came in to what the workflow asked for then. Example: streammesh run graph digest-17 --format dot | dot -Tsvg > run.svg",
)
@click.argument("id")
@click.option(
    "--format", "form", type=click.Choice(["text", "mermaid", "dot", "json"]), default="text", show_default=True,
    help="How to draw it.",
)  # fmt: skip
async def graph(mesh: Mesh, out: Output, id: str, form: str) -> None:
    """The flow of a run, from its journal: every step with its state, duration, attempts and agent."""
    from streammesh.cli.graph import dot, flow, mermaid, tree
    from streammesh.cli.story import step_json
    from streammesh.steps import Steps

    seen = await Steps(mesh.store, mesh.keys).read(id)
    nodes = flow(seen)
    if out.json or form == "json":
        steps = [{"key": node.key, "after": node.after or None, **step_json(node.step)} for node in nodes]
        out.object({"run": id, "workflow": seen.head.workflow, "state": seen.head.state, "steps": steps})
        return
    title = f"{seen.head.workflow} {id}\n{seen.head.state}"
    draw = {"text": tree, "mermaid": mermaid, "dot": dot}[form]
    for line in draw(title if form != "text" else title.replace("\n", "  "), nodes):
        out.line(line)


@command(
    run_command,
    epilog="Exits 1 when they do not fit. Example: streammesh run history digest-17 --json | streammesh run replay digest-17 --app workers.digest:agent --journal -",
)
@click.argument("id", required=False)
@click.option(
    "-a",
    "--app",
    envvar="STREAMMESH_APP",
    required=True,
    metavar="MODULE[:AGENT]",
    help="The agent whose code is tried.",
)
@click.option(
    "--journal", metavar="FILE|-", help="A journal in JSON lines, in place of the one in the mesh; ID may be left out."
)
@click.option("--prefixes", is_flag=True, help="Every state that the run went through, too.")
def replay(session: Session, id: str | None, app: str, journal: str | None, prefixes: bool) -> int:
    """Try the code of an app against a recorded journal: does it fit? Nothing in the mesh is touched, and no step runs."""
    from streammesh.cli.apps import find_agent
    from streammesh.errors import NonDeterminism
    from streammesh.replays import journal_of, replay, replay_every_prefix

    if journal is None and id is None:
        raise click.UsageError("which run? give its ID, or a --journal")
    agent = find_agent(app, verbose=bool(session.verbose))
    if journal is not None:
        records = journal_of(read_text(journal, "journal"))
    else:
        records = session.run(lambda mesh: _history(mesh, str(id)))
    first = records[0]
    name = first["workflow"] if first["version"] == 1 else f"{first['workflow']}@{first['version']}"
    if name not in agent.workflows:
        raise Ended(f"{app} has no workflow {name}; it has {', '.join(sorted(agent.workflows)) or 'none'}", 2)
    shown, out = id or journal, session.output
    try:
        found = (replay_every_prefix if prefixes else replay)(agent.workflows[name], records, id=id)
    except NonDeterminism as error:
        if out.json:
            out.object({"run": shown, "ok": False, "records": len(records), "error": str(error)})
        raise Ended(f"{shown} does not fit: {error}", 1) from None
    if out.json:
        out.object({"run": shown, "ok": True, "records": found.records, "ended": found.ended or None,
                    "asks": found.asks, "remark": found.remark or None})  # fmt: skip
    else:
        then = (
            f"ends as {found.ended}"
            if found.ended
            else f"goes on with {', '.join(found.asks)}"
            if found.asks
            else "waits"
        )
        out.line(f"{shown} fits: {found.records} records, and the code {then}")
        if found.remark:
            out.note(found.remark)
    return 0


async def _history(mesh: Mesh, id: str) -> list[dict[str, Any]]:
    handle = mesh.run(id)
    await handle.head()
    return await handle.history()
