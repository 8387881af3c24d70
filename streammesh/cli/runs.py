"""`run`: durable runs from a shell: start them, see how far they are and why, signal them, end them."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import TYPE_CHECKING, Any

import click

from streammesh.cli.endings import Ended, Refused, code_of
from streammesh.cli.output import Output, clean
from streammesh.cli.parameters import DURATION, MOMENT, payload_of, read_text
from streammesh.cli.session import Noun, command

if TYPE_CHECKING:
    from datetime import datetime

    from streammesh.journal import Head
    from streammesh.mesh import Mesh
    from streammesh.runcauses import RunCause
    from streammesh.runs import RunHandle
    from streammesh.steps import RunSteps

__all__ = ["run_command"]

HEADS = ("RUN", "STATE", "WORKFLOW", "ACTIVATION", "AGENT", "STARTED", "")
STATES = ("queued", "running", "parked", "paused", "stuck", "succeeded", "failed", "cancelled")
FIELDS = "[name=text | name:=json | name=@file]..."


@click.group("run", cls=Noun)
def run_command() -> None:
    """Runs: workflows that no crash can stop. Start them, look into them, signal them, end them."""


@command(
    run_command,
    unsafe=False,
    epilog='Example: streammesh run start digest folder=docs --id digest-17 --signal \'approved={"by":"ada"}\' --wait',
)
@click.argument("workflow")
@click.argument("fields", nargs=-1, metavar=FIELDS)
@click.option("-p", "--payload", metavar="JSON|@FILE|-", help="The input, an object; fields are added to it.")
@click.option("--id", metavar="ID", help="Its id; two starts with one id make one run.")
@click.option(
    "--version", type=click.IntRange(1), default=1, metavar="N", help="The version of the workflow (default 1)."
)
@click.option(
    "--on-conflict",
    type=click.Choice(["attach", "fail", "replace"]),
    default="attach",
    help="When there is a run of that id: attach to it (the default), fail (exit 6), or end it and begin anew.",
)
@click.option(
    "--signal", "signals", multiple=True, metavar="NAME=JSON", help="A signal that it finds waiting; may be repeated."
)
@click.option("--wait", "waits", is_flag=True, help="Wait for its end and print its result.")
@click.option(
    "--timeout", type=DURATION, metavar="DURATION", help="With --wait: at most so long (exit 5; the run goes on)."
)
async def start(
    mesh: Mesh, out: Output, workflow: str, fields: tuple[str, ...], payload: str | None, id: str | None, version: int,
    on_conflict: str, signals: tuple[str, ...], waits: bool, timeout: float | None,
) -> int:  # fmt: skip
    """Start a run of WORKFLOW; prints its id."""
    if timeout is not None and not waits:
        raise click.UsageError("--timeout is for --wait; add --wait, or leave it out")
    first = [_signal(one) for one in signals]
    handle = await mesh.start(
        workflow, payload_of(payload, fields), id=id, version=version, on_conflict=on_conflict, signals=first
    )
    if not handle.created:
        state = (await handle.head()).state
        out.note(f"already {state}: there is a run of that id, no second one was made")
        if first:
            out.warn(f"the signals were not sent to it; do that with: streammesh run signal {handle.id} NAME")
    else:
        await _foresee(mesh, out, workflow, version)
    if waits:
        return await _outcome(mesh, out, handle, timeout)
    if out.json:
        out.object({"id": handle.id, "created": handle.created})
    else:
        out.line(handle.id)
    return 0


def _signal(said: str) -> tuple[str, Any]:
    """``NAME=JSON``, or NAME alone for null."""
    from streammesh import codec

    name, sign, text = said.partition("=")
    if not name:
        raise click.UsageError(f"--signal {said!r} is no signal; expected NAME=JSON, such as approved=true")
    return name, codec.decode(text, what=f"payload of signal {name!r}") if sign else None


async def _foresee(mesh: Mesh, out: Output, workflow: str, version: int) -> None:
    """Warn when nobody is there to execute it."""
    from streammesh.runlist import offered_by

    if out.quiet:
        return
    offered = {name for agent in await mesh.agents() for name in offered_by(agent)}
    wanted = workflow if version == 1 else f"{workflow}@{version}"
    if wanted not in offered:
        others = ", ".join(sorted(offered)) or "none"
        out.warn(
            f"no live agent has version {version} of {workflow} (there are: {others}). The run waits until one does."
        )


@command(run_command, name="ls", epilog="Runs are found by a bounded scan of those that are still kept.")
@click.option(
    "--status", "-s", "states", multiple=True, type=click.Choice([*STATES, "open"]),
    help="Only in this state (open: not ended); may be repeated.",
)  # fmt: skip
@click.option("--workflow", "-w", metavar="NAME", help="Only of this workflow; NAME@2 for one version.")
@click.option("--since", type=MOMENT, metavar="TIME", help="Only those that were started then or later (ISO-8601).")
@click.option(
    "--limit", type=click.IntRange(1, 10_000), default=50, show_default=True, help="At most so many, the newest."
)
async def ls(
    mesh: Mesh, out: Output, states: tuple[str, ...], workflow: str | None, since: datetime | None, limit: int
) -> None:
    """List runs, newest first."""
    from streammesh.runlist import states_of

    listed = await mesh.runlist.runs(states_of(states or None), workflow, limit, since)
    if out.json:
        from streammesh.cli.story import head_json

        out.lines(head_json(head) for head in listed.runs)
    elif out.quiet:
        for head in listed.runs:
            out.line(head.id)
    elif listed.runs:
        now = await mesh.status.now_ms()
        out.table(HEADS, [_row(out, head, now) for head in listed.runs], right=["ACTIVATION"])
    else:
        out.note("no runs" + (" in that state" if states else "; start one: streammesh run start WORKFLOW"))
    if not listed.complete:
        out.note("the scan ended at its bound; there may be more")
    elif len(listed.runs) == limit:
        out.note(f"the newest {limit}; --limit shows more")


def _row(out: Output, head: Head, now: int) -> tuple[str, ...]:
    from streammesh.runlist import stream_of

    about = head.fields.get("error", "")
    if head.state == "paused":
        about = f"by {head.fields.get('paused', '?')}"
    elif head.state == "parked" and head.fields.get("waits"):
        about = f"signal {head.fields['waits']}"
    agent = head.fields.get("agent", "") if head.state != "parked" else ""
    return (
        head.id, head.state, stream_of(head), head.fields.get("attempt", "-"), agent or "-",
        out.moment(head.fields.get("started_at"), now), about,
    )  # fmt: skip


@command(
    run_command,
    epilog="Indented steps belong to a task of the workflow (gather, TaskGroup); TOOK includes the wait for an agent.",
)
@click.argument("id")
@click.option("--limit", type=click.IntRange(1), default=1000, show_default=True, help="The newest steps, at most.")
@click.option(
    "--depth", type=click.IntRange(0, 20), default=0, show_default=True, help="Also its children, so far down."
)
async def show(mesh: Mesh, out: Output, id: str, limit: int, depth: int) -> None:
    """The steps of a run, who did them, and what it and each open step are waiting for."""
    from streammesh.cli.story import run_json, show_run

    now = await mesh.status.now_ms()
    shown: dict[str, dict[str, Any]] = {}
    async for seen, cause, whys in _with_children(mesh, id, depth, set()):
        if out.json:
            one = shown[seen.head.id] = run_json(seen, cause, limit, whys)
            # Parents come first.
            parent = shown.get(seen.head.fields.get("parent", "")) if seen.head.id != id else None
            if parent is not None:
                parent.setdefault("children", []).append(one)
        else:
            if seen.head.id != id and not out.quiet:
                out.line()
            show_run(out, seen, cause, now, limit, whys)
    if out.json:
        out.object(shown[id])


#: Open tasks of which it is said what each waits for.
_EXPLAINED = 30


async def _with_children(
    mesh: Mesh, id: str, depth: int, met: set[str]
) -> AsyncIterator[tuple[RunSteps, RunCause, dict[str, str]]]:
    """A run with its cause and the causes of its open tasks, then its children, each followed by its own."""
    from streammesh.causes import Causes
    from streammesh.errors import RunNotFound, TaskNotFound
    from streammesh.runcauses import RunCauses
    from streammesh.steps import Steps

    met.add(id)
    seen = await Steps(mesh.store, mesh.keys).read(id)
    whys: dict[str, str] = {}
    for wait in [wait for wait in seen.waits if wait.kind == "call"][:_EXPLAINED]:
        with contextlib.suppress(TaskNotFound):
            whys[wait.path] = (await Causes(mesh.store, mesh.keys).explain(wait.id)).text
    yield seen, await RunCauses(mesh.store, mesh.keys).judge(seen), whys
    for step in seen.steps if depth else ():
        if step.what == "child" and step.id not in met:
            # One may be gone, after its retention.
            with contextlib.suppress(RunNotFound):
                async for one in _with_children(mesh, step.id, depth - 1, met):
                    yield one


@command(run_command)
@click.argument("ids", metavar="ID...", nargs=-1, required=True)
async def explain(mesh: Mesh, out: Output, ids: tuple[str, ...]) -> None:
    """Why a run does not move, or what became of it: one line."""
    from streammesh.runcauses import RunCauses

    for id in ids:
        cause = await RunCauses(mesh.store, mesh.keys).explain(id)
        if out.json:
            out.lines([{"id": cause.id, "state": cause.state, "cause": cause.word, "text": cause.text}])
        else:
            prefix = f"{cause.id} " if len(ids) > 1 else ""
            out.line(f"{prefix}{out.state(cause.state)}: {clean(cause.text)}")


@command(run_command, epilog="The same as: redis-cli LRANGE '{mesh}:run:ID:journal' 0 -1")
@click.argument("id")
async def history(mesh: Mesh, out: Output, id: str) -> None:
    """The journal of a run, one record a line."""
    from streammesh.cli.story import record_row

    handle = mesh.run(id)
    await handle.head()
    records = await handle.history()
    if out.json:
        out.lines(records)
    else:
        rows = [(str(number), *record_row(out, record)) for number, record in enumerate(records)]
        out.table(("", "AT", "WHAT", ""), rows, right=[""])


@command(run_command, epilog="Example: streammesh run signal digest-17 approved by=ada --signal-id approval-of-ada")
@click.argument("id")
@click.argument("name")
@click.argument("fields", nargs=-1, metavar=FIELDS)
@click.option(
    "-p", "--payload", metavar="JSON|@FILE|-", help="The payload, any JSON (an object, where fields are added)."
)
@click.option(
    "--signal-id", default="", metavar="ID", help="The id of this signal: a second one with it changes nothing."
)
async def signal(
    mesh: Mesh, out: Output, id: str, name: str, fields: tuple[str, ...], payload: str | None, signal_id: str
) -> None:
    """Send a signal to a run; it keeps it until its workflow asks for it."""
    from streammesh import codec

    value: Any = None
    if fields:
        value = payload_of(payload, fields)
    elif payload is not None:
        text = read_text(payload, "payload") if payload == "-" or payload.startswith("@") else payload
        value = codec.decode(text)
    word = await mesh.run(id).signal(name, value, id=signal_id)
    if out.json:
        out.object({"id": id, "signal": name, "verdict": word})
    if word == "closed":
        raise Refused(f"run {id} has ended already; nobody would read the signal")
    if not out.json:
        out.line(id)
    if word == "duplicate":
        out.note(f"a signal with the id {signal_id} had been accepted before; nothing was changed")


@command(run_command)
@click.argument("id")
@click.option("--timeout", type=DURATION, metavar="DURATION", help="Wait at most so long (exit 5; the run goes on).")
async def wait(mesh: Mesh, out: Output, id: str, timeout: float | None) -> int:
    """Wait for the end of a run and print its result; exits 1 when it did not succeed."""
    return await _outcome(mesh, out, mesh.run(id), timeout)


async def _outcome(mesh: Mesh, out: Output, handle: RunHandle, timeout: float | None) -> int:
    import asyncio

    from streammesh.errors import ResultTimeout, RunCancelled, RunFailed
    from streammesh.runcauses import RunCauses

    id = handle.id
    try:
        result = await handle.result(timeout)
    except ResultTimeout:
        cause = await RunCauses(mesh.store, mesh.keys).explain(id)
        said = f"no outcome after {timeout:g} s, {cause.state}: {cause.text}; it goes on: streammesh run wait {id}"
        if out.json:
            out.object({"id": id, "state": cause.state, "error": said})
        raise Ended(f"run {id}: {said}", 5) from None
    except (RunFailed, RunCancelled) as error:
        state = "failed" if isinstance(error, RunFailed) else "cancelled"
        if out.json:
            out.object({"id": id, "state": state, "error": str(error)})
        click.echo(f"{id} {out.state(state)}: {clean(str(error))}", err=True)
        return code_of(error)
    except asyncio.CancelledError:
        out.note(f"run {id} goes on: streammesh run wait {id}")
        raise
    out.object({"id": id, "state": "succeeded", "result": result}) if out.json else out.line(out.value(result))
    return 0


_IDS = click.argument("ids", metavar="ID...", nargs=-1, required=True)
_BY = click.option("--by", default="cli", metavar="WHO", help="Who asks; `run explain` and `run history` show it.")


async def _each(
    mesh: Mesh, out: Output, ids: tuple[str, ...], act: Callable[[RunHandle], Awaitable[str]], unchanged: str = ""
) -> None:
    """One line for each run; RunNotFound at the first that is not there, Refused when one has ended."""
    refused = []
    for id in ids:
        verdict, _, state = (await act(mesh.run(id))).partition(" ")
        if out.json:
            out.lines([{"id": id, "verdict": verdict, **({"about": state} if state else {})}])
        if verdict == "closed":
            refused.append(f"run {id} has ended already" + (f" ({state})" if state else ""))
        elif not out.json:
            out.line(id)
        if verdict == "unchanged":
            out.note(f"run {id} is {state}: {unchanged}")
    if refused:
        raise Refused("; ".join(refused))


@command(run_command)
@_IDS
@_BY
async def cancel(mesh: Mesh, out: Output, ids: tuple[str, ...], by: str) -> None:
    """Ask runs to stop: their workflows get a CancelledError, and may clean up."""
    await _each(mesh, out, ids, lambda run: run.cancel(by=by))


@command(run_command)
@_IDS
@_BY
async def terminate(mesh: Mesh, out: Output, ids: tuple[str, ...], by: str) -> None:
    """End runs at once: no more of their code runs, not even to clean up."""
    await _each(mesh, out, ids, lambda run: run.terminate(by=by))


@command(run_command)
@_IDS
@_BY
async def pause(mesh: Mesh, out: Output, ids: tuple[str, ...], by: str) -> None:
    """Let no agent go on with runs until they are resumed; steps that run are finished and remembered."""
    await _each(mesh, out, ids, lambda run: run.pause(by=by), "it was before")


@command(run_command)
@_IDS
@_BY
async def resume(mesh: Mesh, out: Output, ids: tuple[str, ...], by: str) -> None:
    """Go on with paused runs, and try stuck ones again."""
    await _each(mesh, out, ids, lambda run: run.resume(by=by), "there was nothing to resume")
