"""`task`: what became of tasks, and what can be done about them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from streammesh.cli.endings import Missing, Refused
from streammesh.cli.output import Output, clean, milliseconds
from streammesh.cli.parameters import DURATION
from streammesh.cli.session import Noun, command
from streammesh.moments import duration

if TYPE_CHECKING:
    from streammesh.mesh import Mesh
    from streammesh.record import Record

__all__ = ["task_command"]

#: Fields of a record that hold JSON, those that hold points in time, and those that only the engine needs.
_JSON = ("payload", "result", "progress")
HEADS = ("ID", "STATE", "CAPABILITY", "ATTEMPT", "AGENT", "ENQUEUED", "")
STATES = ("queued", "delayed", "running", "succeeded", "failed", "cancelled", "dead", "expired")
_MOMENTS = ("enqueued_at", "started_at", "finished_at", "due", "deadline")
_ORDER = (
    "state", "capability", "payload", "result", "reason", "error", "progress", "agent", "attempt", "failures", "deaths",
    "enqueued_at", "due", "deadline", "started_at", "finished_at", "priority", "to", "correlation", "causation",
)  # fmt: skip


@click.group("task", cls=Noun)
def task_command() -> None:
    """Look at tasks, wait for them, cancel them, run them again."""


@command(
    task_command, name="ls", epilog="Finished tasks are found by a bounded scan of the records that are still kept."
)
@click.option(
    "--state",
    "-s",
    "states",
    multiple=True,
    type=click.Choice([*STATES, "open"]),
    help="Only in this state (open: not finished); may be repeated.",
)
@click.option("--capability", "-c", metavar="NAME", help="Only of this capability.")
@click.option(
    "--limit", type=click.IntRange(1, 10_000), default=50, show_default=True, help="At most so many, the newest."
)
async def ls(mesh: Mesh, out: Output, states: tuple[str, ...], capability: str | None, limit: int) -> None:
    """List tasks, newest first."""
    from streammesh.listing import Listing
    from streammesh.record import State

    wanted = {state for state in State if state in states or (not state.final and "open" in states) or not states}
    listed = await Listing(mesh.store, mesh.keys).tasks(wanted, capability, limit)
    if out.json:
        out.lines(record_json(record) for record in listed.records)
    elif out.quiet:
        for record in listed.records:
            out.line(record.id)
    elif listed.records:
        now = await mesh.status.now_ms()
        out.table(HEADS, [_row(out, record, now) for record in listed.records], right=["ATTEMPT"])
    else:
        out.note("no tasks" + (" in that state" if states else ""))
    if not listed.complete:
        out.note("the scan for finished tasks ended at its bound; there may be more")
    elif len(listed.records) == limit:
        out.note(f"the newest {limit}; --limit shows more")


def _row(out: Output, record: Record, now: int) -> tuple[str, ...]:
    fields = record.fields
    about = fields.get("error", "")
    if record.state == "delayed" and fields.get("due"):
        about = " ".join(filter(None, [f"due {out.moment(fields['due'], now)}", about]))
    attempt = fields.get("attempt", "-")
    return (
        record.id, record.state, record.capability, attempt, record.agent or fields.get("to", "") or "-",
        out.moment(fields.get("enqueued_at"), now), about,
    )  # fmt: skip


@command(task_command)
@click.argument("ids", metavar="ID...", nargs=-1, required=True)
async def show(mesh: Mesh, out: Output, ids: tuple[str, ...]) -> None:
    """Everything the record of a task says."""
    now = await mesh.status.now_ms()
    for number, id in enumerate(ids):
        record = await mesh.tasks.record(id)
        if out.json:
            out.lines([record_json(record)]) if len(ids) > 1 else out.object(record_json(record))
        elif out.quiet:
            out.line(record.fields.get("state", "?"))
        else:
            if number:
                out.line()
            out.pairs([("id", id), *_shown(out, record, now)])


def record_json(record: Record) -> dict[str, Any]:
    """The record for programs: JSON fields decoded, numbers as numbers."""
    value: dict[str, Any] = {"id": record.id}
    for name in sorted(record.fields, key=_rank):
        text = record.fields[name]
        if name in _JSON:
            value[name] = decoded(text)
        elif name in ("attempt", "failures", "deaths", "due", "deadline") and text.isdigit():
            value[name] = int(text)
        else:
            value[name] = text
    return value


def decoded(text: str) -> Any:
    """JSON text as a value; text that is none as it is."""
    from streammesh import codec
    from streammesh.errors import PayloadError

    try:
        return codec.decode(text)
    except PayloadError:
        # What somebody typed into redis-cli and no handler could take either.
        return text


def _rank(name: str) -> tuple[int, str]:
    return (_ORDER.index(name) if name in _ORDER else len(_ORDER), name)


def _shown(out: Output, record: Record, now: int) -> list[tuple[str, Any]]:
    pairs: list[tuple[str, Any]] = []
    for name in sorted(record.fields, key=_rank):
        text: Any = record.fields[name]
        if name in _MOMENTS:
            text = out.moment(text, now)
        elif name in _JSON and isinstance(decoded(text), dict | list):
            text = out.value(decoded(text))
        pairs.append((name, text))
    began, ended = (milliseconds(record.fields.get(name)) for name in ("started_at", "finished_at"))
    if began and ended:
        pairs.append(("took", duration((ended - began) / 1000)))
    return pairs


@command(task_command)
@click.argument("ids", metavar="ID...", nargs=-1, required=True)
async def explain(mesh: Mesh, out: Output, ids: tuple[str, ...]) -> None:
    """Why a task is not running, or what became of it: one line."""
    from streammesh.causes import Causes

    for id in ids:
        cause = await Causes(mesh.store, mesh.keys).explain(id)
        if out.json:
            out.lines([{"id": cause.id, "state": cause.state, "cause": cause.word, "text": cause.text}])
        else:
            prefix = f"{cause.id} " if len(ids) > 1 else ""
            out.line(f"{prefix}{out.state(cause.state)}: {clean(cause.text)}")


@command(task_command)
@click.argument("ids", metavar="ID...", nargs=-1, required=True)
@click.option("--timeout", type=DURATION, metavar="DURATION", help="Wait at most so long (exit 5; the task goes on).")
async def wait(mesh: Mesh, out: Output, ids: tuple[str, ...], timeout: float | None) -> int:
    """Wait for tasks and print their results; exits 1 when one did not succeed."""
    from streammesh.cli.enqueue import await_outcomes

    return await await_outcomes(mesh, out, ids, timeout)


@command(task_command)
@click.argument("ids", metavar="ID...", nargs=-1, required=True)
async def cancel(mesh: Mesh, out: Output, ids: tuple[str, ...]) -> None:
    """Cancel tasks: waiting ones at once, running ones as soon as their agent can stop them."""
    words = await mesh.tasks.cancel(ids, by="cli")
    _tell(out, ids, words, {"ok": "cancelled", "running": "is running; asked", "closed": "has ended already"})


@command(task_command)
@click.argument("ids", metavar="ID...", nargs=-1, required=True)
async def retry(mesh: Mesh, out: Output, ids: tuple[str, ...]) -> None:
    """Run finished tasks again, under the same id and with a fresh budget."""
    words = await mesh.tasks.retry(ids)
    _tell(out, ids, words, {"ok": "queued again", "open": "has not ended"})


@command(
    task_command,
    epilog="Ctrl-C ends it. Enqueueing and success are not events (they would cost as much as the work): see `info`.",
)
@click.argument("id", required=False)
@click.option("--capability", "-c", metavar="NAME", help="Only events of this capability.")
@click.option("--since", type=DURATION, metavar="DURATION", help="Begin with events so long ago.")
@click.option("--follow/--no-follow", "-f/-F", default=True, help="Go on with new events (the default).")
async def tail(
    mesh: Mesh, out: Output, id: str | None, capability: str | None, since: float | None, follow: bool
) -> int:
    """Follow what happens: retries, deaths, cancels of all tasks; or with ID, one task until it has ended."""
    from streammesh.cli.tailing import events, until_ended

    if id is not None:
        return await until_ended(mesh, out, id)
    await events(mesh, out, capability, since, follow)
    return 0


def _tell(out: Output, ids: tuple[str, ...], words: list[str], meaning: dict[str, str]) -> None:
    """One line for each; Missing or Refused when one could not be done."""
    missing, refused = [], []
    for id, word in zip(ids, words, strict=True):
        verdict, _, more = word.partition(" ")
        missing += [id] if verdict == "missing" else []
        refused += [f"{id} {meaning[verdict]} ({more})"] if verdict in ("closed", "open") else []
        if out.json:
            out.lines([{"id": id, "verdict": verdict, **({"about": more} if more and more != id else {})}])
        elif verdict == "ok":
            out.line(id)
        elif verdict == "running":
            out.line(id)
            out.note(f"{id} {meaning[verdict]} {more} to stop it")
    if missing:
        raise Missing(f"there is no task {', '.join(missing)}: never enqueued in this mesh, or past its retention")
    if refused:
        raise Refused("; ".join(refused))
