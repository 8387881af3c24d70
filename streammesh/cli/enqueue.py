"""`enqueue` and `call`: tasks from a shell, one or many, waited for or not."""

from __future__ import annotations

import difflib
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import nullcontext
from datetime import datetime
from itertools import islice
from typing import IO, TYPE_CHECKING, Any

import click

from streammesh.cli.endings import Ended, Refused
from streammesh.cli.output import Output, clean
from streammesh.cli.parameters import DURATION, MOMENT, UNTIL, header_pairs, payload_of
from streammesh.cli.session import Session, command

if TYPE_CHECKING:
    from streammesh.mesh import Mesh

__all__ = ["call_command", "enqueue_command"]

#: Lines that go into one call.
CHUNK = 1000


def _options(function: Callable[..., Any]) -> Callable[..., Any]:
    """What `enqueue` and `call` have in common."""
    for option in reversed(
        [
            click.argument("capability"),
            click.argument("fields", nargs=-1, metavar="[name=text | name:=json | name=@file]..."),
            click.option("-p", "--payload", metavar="JSON|@FILE|-", help="The payload, an object; fields are added to it."),
            click.option("--id", metavar="ID", help="Its id; the same id again is the same task."),
            click.option("--in", "delay", type=DURATION, metavar="DURATION", help="Not before so long from now: 30s 5m 2h."),
            click.option("--at", type=MOMENT, metavar="ISO", help="Not before that point in time."),
            click.option("--deadline", type=UNTIL, metavar="DURATION|ISO", help="Expires when it has not finished by then."),
            click.option("--priority", type=click.Choice(["high", "normal", "low"]), default="normal", help="Its lane (default normal)."),
            click.option("--to", metavar="AGENT", help="Only for this agent (id or name)."),
            click.option("--header", "headers", multiple=True, metavar="NAME=VALUE", help="Passed to the handler; may be repeated."),
        ]
    ):  # fmt: skip
        function = option(function)
    return function


@command(unsafe=False, epilog="Example: streammesh enqueue summarize text=@notes.txt sentences:=3 --id notes")
@_options
@click.option(
    "--lines", is_flag=True, help="One task for each line of JSON of the input (-p @FILE or -p -, the default)."
)
@click.option("--id-from", metavar="FIELD", help="With --lines: the id of each task is this field of its payload.")
def enqueue(session: Session, lines: bool, id_from: str | None, **given: Any) -> int:
    """Enqueue a task for CAPABILITY; prints its id.

    A known id with the same payload prints the same id again; with another payload it is refused (exit 6).
    """
    if not lines:
        if id_from:
            raise click.UsageError("--id-from is for --lines; use --id for one task")
        task = _task(given)
        return session.run(lambda mesh: _one(mesh, session.output, task), unsafe=False)
    if given.pop("fields"):
        raise click.UsageError("--lines takes its payloads from the input; leave the fields out")
    if given.pop("id"):
        raise click.UsageError("--lines makes many tasks; use --id-from FIELD instead of --id")
    source = given.pop("payload") or "-"
    if source != "-" and not source.startswith("@"):
        raise click.UsageError("--lines reads -p @FILE or -p -, not a payload")
    given["headers"] = header_pairs(given["headers"])
    return session.run(lambda mesh: _many(mesh, session.output, source, id_from, given), unsafe=False)


def _task(given: dict[str, Any]) -> dict[str, Any]:
    if given["delay"] is not None and given["at"] is not None:
        raise click.UsageError("--in and --at are both given; give one")
    given["payload"] = payload_of(given["payload"], given.pop("fields"))
    given["headers"] = header_pairs(given["headers"])
    return given


async def _one(mesh: Mesh, out: Output, task: dict[str, Any]) -> int:
    capability, payload = task.pop("capability"), task.pop("payload")
    made = await mesh.enqueue(capability, payload, **task)
    if out.json:
        out.object({"id": made.id, "created": made.created})
    else:
        out.line(made.id)
    if not made.created:
        out.note(
            f"already {(await made.record()).state}: the id is known with the same payload, no second task was made"
        )
    else:
        await _foresee(mesh, out, capability, task["delay"] or task["at"])
    return 0


async def _foresee(mesh: Mesh, out: Output, capability: str, later: float | datetime | None = None) -> None:
    """Warn when nobody is there to do it, or when it is paused."""
    if later or out.quiet:
        return
    offered = {name for agent in await mesh.agents() for name in agent.capabilities}
    if capability not in offered:
        close = difflib.get_close_matches(capability, offered, n=1)
        hint = (
            f"; did you mean {close[0]}? If not," if close else f" (offered: {', '.join(sorted(offered)) or 'none'});"
        )
        out.warn(f"no live agent offers {capability}{hint} the task waits until one does")
    paused = (await mesh.registry.capabilities()).get(capability, {}).get("paused")
    if paused:
        out.warn(f"{capability} is paused by {paused}; the task waits for `streammesh caps resume {capability}`")


async def _many(mesh: Mesh, out: Output, source: str, id_from: str | None, options: dict[str, Any]) -> int:
    from streammesh.errors import PayloadConflict

    capability = options.pop("capability")
    known = conflicts = total = 0
    flaw: Ended | None = None
    with _opened(source) as file, _progress(file, out) as advance:
        parsed = _payloads(file, id_from)
        while flaw is None:
            chunk: list[tuple[int, str | None, dict[str, Any]]] = []
            try:
                for line in islice(parsed, CHUNK):
                    chunk.append(line)
            except Ended as found:
                flaw = found
            if not chunk:
                break
            ids = [str(id) for _, id, _ in chunk] if id_from else None
            verdicts = await mesh.enqueue_many(capability, [payload for _, _, payload in chunk], ids=ids, **options)
            for (number, _, _), verdict in zip(chunk, verdicts, strict=True):
                if isinstance(verdict, PayloadConflict):
                    conflicts += 1
                    out.warn(f"line {number}: {verdict}")
                    continue
                known += not verdict.created
                if out.json:
                    out.lines([{"id": verdict.id, "created": verdict.created}])
                else:
                    out.line(verdict.id)
            total += len(chunk)
            advance(len(chunk))
    out.note(f"{total - known - conflicts} enqueued" + (f", {known} known already" if known else ""))
    if flaw is not None:
        raise flaw
    if conflicts:
        raise Refused(f"{conflicts} ids are known with another payload; nothing was changed for them")
    if total:
        await _foresee(mesh, out, capability, options["delay"] or options["at"])
    return 0


def _opened(source: str) -> Any:
    if source == "-":
        return nullcontext(sys.stdin)
    try:
        return open(source.removeprefix("@"), encoding="utf-8")
    except OSError as error:
        raise click.UsageError(f"{source.removeprefix('@')} cannot be read: {error.strerror}") from None


def _payloads(file: IO[str], id_from: str | None) -> Iterator[tuple[int, str | None, dict[str, Any]]]:
    """(number, id, payload) of each line; raises Ended at the first that is no payload."""
    from streammesh import codec
    from streammesh.errors import MeshError
    from streammesh.keys import check_id

    for number, line in enumerate(file, 1):
        if not line.strip():
            continue
        try:
            payload = codec.decode_object(line)
            id = None
            if id_from is not None:
                id = payload.get(id_from)
                id = check_id(
                    str(id) if isinstance(id, int) and not isinstance(id, bool) else id, f"field {id_from!r} as an id"
                )
        except MeshError as error:
            raise Ended(f"line {number}: {error}; what came before it is enqueued, the rest is not", 2) from None
        yield number, id, payload


def _progress(file: IO[str], out: Output) -> Any:
    """A bar on stderr, where somebody sees it."""
    if out.quiet or not sys.stderr.isatty():
        return nullcontext(lambda count: None)
    try:
        from rich.console import Console
        from rich.progress import Progress, SpinnerColumn, TextColumn, TimeElapsedColumn
    except ImportError:
        return nullcontext(lambda count: None)
    from contextlib import contextmanager

    @contextmanager
    def bar() -> Iterator[Callable[[int], None]]:
        columns = (SpinnerColumn(), TextColumn("{task.completed:,.0f} enqueued"), TimeElapsedColumn())
        with Progress(*columns, console=Console(stderr=True), transient=True) as progress:
            row = progress.add_task("", total=None)
            yield lambda count: progress.advance(row, count)

    return bar()


@command(unsafe=False, epilog="Example: streammesh call summarize text='…' --timeout 30s | jq .summary")
@_options
@click.option("--timeout", type=DURATION, metavar="DURATION", help="Wait at most so long (exit 5; the task goes on).")
def call(session: Session, timeout: float | None, **given: Any) -> int:
    """Enqueue a task for CAPABILITY, wait for it, and print its result as JSON.

    Exits 1 when the task does not succeed, with the reason on stderr.
    """
    task = _task(given)
    return session.run(lambda mesh: _call(mesh, session.output, task, timeout), unsafe=False)


async def _call(mesh: Mesh, out: Output, task: dict[str, Any], timeout: float | None) -> int:
    capability, payload = task.pop("capability"), task.pop("payload")
    made = await mesh.enqueue(capability, payload, **task)
    if not made.created:
        out.note(f"the id is known already; this is the outcome of task {made.id}")
    else:
        await _foresee(mesh, out, capability)
    return await await_outcomes(mesh, out, [made.id], timeout)


async def await_outcomes(mesh: Mesh, out: Output, ids: Sequence[str], timeout: float | None) -> int:
    """Wait for tasks in turn and print what became of them; 0 when all succeeded, else the code of the worst."""
    import asyncio

    from streammesh.cli.endings import code_of
    from streammesh.errors import ResultTimeout, TaskError

    loop = asyncio.get_running_loop()
    end = None if timeout is None else loop.time() + timeout
    worst = 0
    for id in ids:
        try:
            result = await mesh.task(id).result(None if end is None else max(0.001, end - loop.time()))
        except TaskError as error:
            worst = max(worst, code_of(error))
            said = f"no outcome after {timeout:g} s; it goes on: streammesh task wait {id}" if isinstance(error, ResultTimeout) else str(error)  # fmt: skip
            state = type(error).__name__.removeprefix("Task").lower()
            state = {"resulttimeout": "open", "notfound": "missing"}.get(state, state)
            if out.json:
                out.lines([{"id": id, "state": state, "error": said}])
            out.bad(f"{id} {out.state(state)}: {clean(said)}")
        except asyncio.CancelledError:
            out.note(f"task {id} goes on: streammesh task wait {id}")
            raise
        else:
            out.lines([{"id": id, "state": "succeeded", "result": result}]) if out.json else out.line(out.value(result))
    return worst


enqueue_command = enqueue
call_command = call
