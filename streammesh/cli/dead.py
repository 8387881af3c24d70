"""`dead`: tasks that could not be done. Look at them, run them again, or let them go."""

from __future__ import annotations

import re
import sys
from collections.abc import Callable
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import click

from streammesh.cli.endings import Ended, Missing, Refused
from streammesh.cli.output import Output
from streammesh.cli.parameters import UNTIL
from streammesh.cli.session import Noun, command

if TYPE_CHECKING:
    from streammesh.dead import Letter
    from streammesh.mesh import Mesh

__all__ = ["dead_command"]


@click.group("dead", cls=Noun)
def dead_command() -> None:
    """Dead letters: tasks that could not be done, kept until somebody replays or removes them."""


def _filters(function: Callable[..., Any]) -> Callable[..., Any]:
    for option in reversed(
        [
            click.option("--capability", "-c", metavar="NAME", help="Only of this capability (inbox: messages)."),
            click.option("--error", metavar="REGEX", help="Only where this is found in 'reason: error'."),
            click.option("--since", type=UNTIL, metavar="DURATION|ISO", help="Only from the last so long, or from then on."),
        ]
    ):  # fmt: skip
        function = option(function)
    return function


async def _found(
    mesh: Mesh, ids: tuple[str, ...], capability: str | None, error: str | None, since: float | datetime | None
) -> list[Letter]:
    """The letters that ids and filters mean. Raises Missing for an id without a letter."""
    if error is not None:
        try:
            re.compile(error)
        except re.error as flaw:
            raise click.UsageError(f"--error {error!r} is no regular expression: {flaw}") from None
    if isinstance(since, datetime):
        start = since.timestamp()
    elif since is not None:
        start = await mesh.status.now_ms() / 1000 - since
    else:
        start = None
    iso = datetime.fromtimestamp(start, UTC).isoformat(timespec="milliseconds")[:-6] if start is not None else None
    letters = [letter async for letter in mesh.dead.letters(capability, error=error, since=iso)]
    if not ids:
        return letters
    wanted = [letter for letter in letters if letter.id in ids]
    absent = [id for id in ids if id not in {letter.id for letter in wanted}]
    if absent:
        raise Missing(f"there is no dead letter of {', '.join(absent)}; see `streammesh dead ls`")
    return wanted


def _json(letter: Letter) -> dict[str, Any]:
    from streammesh.cli.task import decoded

    return {
        "id": letter.id, "capability": letter.capability, "reason": letter.reason, "error": letter.error,
        "attempts": letter.attempts, "agent": letter.agent, "at": letter.at, "payload": decoded(letter.payload),
        "entry": letter.entry, "shard": letter.shard,
    }  # fmt: skip


def _listed(out: Output, letters: list[Letter], now: int) -> None:
    if out.json:
        out.lines(_json(letter) for letter in letters)
    elif out.quiet:
        for letter in letters:
            out.line(letter.id)
    elif letters:
        rows = [
            (one.id, one.capability, one.reason, str(one.attempts), out.moment(one.at, now), one.error)
            for one in letters
        ]
        out.table(("ID", "CAPABILITY", "REASON", "ATTEMPTS", "AT", "ERROR"), rows, right=["ATTEMPTS"])


@command(dead_command, name="ls")
@_filters
@click.option("--limit", type=click.IntRange(1), default=100, show_default=True, help="At most so many, the newest.")
async def ls(mesh: Mesh, out: Output, limit: int, **filters: Any) -> None:
    """List dead letters, oldest first."""
    letters = sorted(await _found(mesh, (), **filters), key=lambda one: one.at)
    _listed(out, letters[-limit:], await mesh.status.now_ms())
    if len(letters) > limit:
        out.note(f"{len(letters) - limit} older ones are not shown; --limit {len(letters)} shows all")
    elif not letters:
        out.note("no dead letters")


@command(dead_command)
@click.argument("id")
async def show(mesh: Mesh, out: Output, id: str) -> None:
    """Everything about one dead letter."""
    from streammesh.errors import TaskNotFound

    letters = await _found(mesh, (id,), None, None, None)
    now = await mesh.status.now_ms()
    try:
        detail = (await mesh.tasks.record(id)).fields.get("error_detail", "")
    except TaskNotFound:
        detail = ""
    for letter in letters:
        if out.json:
            out.object({**_json(letter), "detail": detail})
            continue
        out.pairs(
            [
                ("id", letter.id), ("capability", letter.capability), ("reason", letter.reason), ("error", letter.error),
                ("attempts", letter.attempts), ("agent", letter.agent), ("at", out.moment(letter.at, now)),
                ("payload", letter.payload), ("detail", detail),
            ]
        )  # fmt: skip


def _choice(function: Callable[..., Any]) -> Callable[..., Any]:
    for option in reversed(
        [
            click.argument("ids", metavar="[ID]...", nargs=-1),
            click.option("--all", "everything", is_flag=True, help="All of them (that pass the filters)."),
            click.option("--dry-run", is_flag=True, help="Show which, and do nothing."),
            click.option("--yes", "-y", is_flag=True, help="Do not ask."),
        ]
    ):
        function = option(function)
    return _filters(function)


async def _chosen(
    mesh: Mesh, out: Output, verb: str, ids: tuple[str, ...], everything: bool, dry_run: bool, yes: bool, **filters: Any
) -> list[Letter]:
    """The letters to act upon: shown and asked about first, unless single ids were named."""
    if not ids and not everything and not any(value is not None for value in filters.values()):
        raise click.UsageError(f"say which to {verb}: ids, a filter (--capability --error --since), or --all")
    letters = await _found(mesh, ids, **filters)
    if dry_run:
        _listed(out, letters, await mesh.status.now_ms())
        out.note(f"{len(letters)} would be {verb}ed" if verb == "replay" else f"{len(letters)} would be removed")
        return []
    if not ids and letters and not yes:
        if not (sys.stdin.isatty() and sys.stderr.isatty()):
            raise click.UsageError(
                f"{len(letters)} dead letters are meant; say --yes to {verb} them, or --dry-run to see them"
            )
        if not click.confirm(f"{verb} {len(letters)} dead letters?", err=True):
            raise Ended("nothing was done", 1)
    if not letters:
        out.note("no dead letters are meant")
    return letters


@command(dead_command)
@_choice
async def replay(mesh: Mesh, out: Output, **choice: Any) -> None:
    """Run dead tasks again: same id, same payload, a fresh budget."""
    letters = await _chosen(mesh, out, "replay", **choice)
    refused = []
    for letter in letters:
        word, _, more = (await mesh.dead.replay(letter)).partition(" ")
        if word == "ok":
            out.lines([{"id": letter.id, "verdict": word}]) if out.json else out.line(letter.id)
        else:
            why = {"open": f"is {more}", "message": "is a message: only who sent it can send it again"}
            refused.append(f"{letter.id} ({why.get(word, 'was taken away meanwhile')})")
    if refused:
        raise Refused(f"not replayed: {', '.join(refused)}")
    if letters:
        out.note(f"{len(letters)} replayed")


@command(dead_command)
@_choice
async def rm(mesh: Mesh, out: Output, **choice: Any) -> None:
    """Remove dead letters for good."""
    letters = await _chosen(mesh, out, "remove", **choice)
    removed = 0
    for letter in letters:
        if await mesh.dead.remove(letter):
            removed += 1
            out.lines([{"id": letter.id, "verdict": "removed"}]) if out.json else out.line(letter.id)
    if letters:
        out.note(f"{removed} removed")
