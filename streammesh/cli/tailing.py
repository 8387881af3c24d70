"""Following: the audit tail of the mesh, one task until it has ended, and the comings and goings of agents."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping
from typing import TYPE_CHECKING, Any

from streammesh.cli.output import Output, clean

if TYPE_CHECKING:
    from streammesh.mesh import Mesh

__all__ = ["entries_after", "events", "last_of", "until_ended"]

#: Seconds between two looks at one task: its progress is written, but not announced.
LOOK = 0.25


async def last_of(mesh: Mesh, stream: str) -> str:
    """The id of the newest entry: what comes after it is new."""
    newest = await mesh.store.command("XREVRANGE", stream, "+", "-", "COUNT", 1)
    return str(newest[0][0]) if newest else "0-0"


async def entries_after(mesh: Mesh, stream: str, last: str) -> AsyncIterator[tuple[str, dict[str, str]]]:
    """Entries of a stream as they come, for ever; blocking reads, no polling."""
    from streammesh.store import BLOCK

    link = mesh.store.link("tail")
    while True:
        got = await mesh.store.command(
            "XREAD", "COUNT", 500, "BLOCK", int(BLOCK * 1000), "STREAMS", stream, last, link=link, timeout=BLOCK + 3
        )
        for _, entries in got or ():
            for entry, flat in entries:
                last = entry
                yield entry, dict(zip(flat[::2], flat[1::2], strict=True))


async def events(
    mesh: Mesh,
    out: Output,
    capability: str | None,
    since: float | None,
    follow: bool,
    *,
    kind: str | None = None,
    correlation: str | None = None,
) -> None:
    """Print the audit tail from ``since`` seconds ago, or from now on, of all shards; ``kind`` 'task.' is all of tasks."""

    def shown(entry: str, fields: Mapping[str, str]) -> None:
        said = fields.get("type", "")
        if kind and not (said.startswith(kind) if kind.endswith(".") else said == kind):
            return
        if not correlation or fields.get("correlation") == correlation:
            _event(out, entry, fields, capability)

    start = None if since is None else await mesh.status.now_ms() - int(since * 1000)

    async def one(shard: int) -> None:
        stream = mesh.keys.events(shard)
        last = await last_of(mesh, stream)
        if start is not None or not follow:
            past = await mesh.store.command("XRANGE", stream, start if start is not None else "-", last)
            for entry, flat in past if last != "0-0" else ():
                shown(entry, dict(zip(flat[::2], flat[1::2], strict=True)))
        if follow:
            async for entry, fields in entries_after(mesh, stream, last):
                shown(entry, fields)

    await asyncio.gather(*(one(shard) for shard in range(mesh.keys.shards)))


def _event(out: Output, entry: str, fields: Mapping[str, str], capability: str | None) -> None:
    if capability and fields.get("capability") != capability:
        return
    if out.json:
        out.lines([{"entry": entry, **fields}])
        return
    rest = " ".join(
        f"{name}={fields[name]}" for name in fields if name not in ("type", "at", "msg") and fields[name] != ""
    )
    msg = f": {fields['msg']}" if fields.get("msg") else ""
    kind = fields.get("type", "")
    shown = out.style(kind.ljust(14), fg="red" if kind.endswith((".dead", ".died", "_lost")) else "cyan")
    out.line(f"{out.moment(fields.get('at') or entry.partition('-')[0])}  {shown}  {clean(rest + msg)}")


async def until_ended(mesh: Mesh, out: Output, id: str) -> int:
    """Print every change of a task until it has ended; 0 when it succeeded, else 1."""
    seen: tuple[Any, ...] | None = None
    while True:
        record = await mesh.tasks.record(id)
        now = (record.state, record.attempt, record.agent, record.fields.get("progress"), record.error)
        if now != seen:
            seen = now
            if out.json:
                from streammesh.cli.task import record_json

                out.lines([record_json(record)])
            else:
                parts = [f"attempt={record.attempt}" if record.attempt else "", record.agent]
                parts += [f"progress={record.fields['progress']}" if "progress" in record.fields else "", record.error]
                out.line(f"{out.state(record.state)}  {clean('  '.join(part for part in parts if part))}".rstrip())
        if record.state.final:
            return 0 if record.state == "succeeded" else 1
        await asyncio.sleep(LOOK)
