"""`keys`: what a mesh keeps in the server, with redis-cli lines for *this* mesh that can be pasted as they are."""

from __future__ import annotations

import re
import shlex
import shutil
from typing import TYPE_CHECKING
from urllib.parse import parse_qs, unquote, urlsplit

import click

from streammesh.cli.output import Output
from streammesh.cli.session import command

if TYPE_CHECKING:
    from streammesh.mesh import Mesh

__all__ = ["keys_command", "redis_cli"]

_ROW = re.compile(r"^ {4}(\{mesh\}:\S+) +(STREAM|HASH|ZSET|SET|LIST) +(.+)$", re.MULTILINE)

#: Word of a key -> what to ask of it.
ASK = {
    "meta": ["HGETALL {key}"],
    "tasks": ["XLEN {key}", "XPENDING {key} agents", "XRANGE {key} - + COUNT 3"],
    "inbox": ["XLEN {key}"],
    "mail": ["XLEN {key}", "XRANGE {key} - + COUNT 3"],
    "task": ["HGETALL {key}", "TTL {key}"],
    "run": ["HGETALL {key}", "TTL {key}"],
    "auction": ["HGETALL {key}", "TTL {key}"],
    "auctions": ["ZRANGE {key} 0 9 WITHSCORES"],
    "vote": ["HGETALL {key}", "TTL {key}"],
    "votes": ["ZRANGE {key} 0 9 WITHSCORES"],
    "rq": ["TYPE {key}"],
    "history": ["HGETALL {key}"],
    "runs": ["XLEN {key}", "XPENDING {key} agents", "XRANGE {key} - + COUNT 3"],
    "workflows": ["SMEMBERS {key}"],
    "schedule": ["HGETALL {key}"],
    "schedules": ["SMEMBERS {key}"],
    "user": ["TYPE {key}"],
    "due": ["ZRANGE {key} 0 9 WITHSCORES"],
    "dead": ["XRANGE {key} - + COUNT 3"],
    "inboxes": ["ZRANGE {key} 0 -1 WITHSCORES"],
    "caps": ["SMEMBERS {key}"],
    "corr": ["HGETALL {key}"],
    "flow": ["LRANGE {key} 0 -1"],
    "refused": ["HGETALL {key}"],
    "replies": ["XLEN {key}"],
    "sweep": ["HGETALL {key}"],
    "events": ["XREVRANGE {key} + - COUNT 5"],
    "agents": ["ZRANGE {key} 0 -1 WITHSCORES"],
    "agent": ["HGETALL {key}"],
    "vanished": ["ZRANGE {key} 0 -1 WITHSCORES"],
    "look": ["GET {key}"],
    "seen": ["SMEMBERS {key}"],
    "cap": ["HGETALL {key}"],
    "members": ["XREVRANGE {key} + - COUNT 5"],
    "broadcast": ["XREVRANGE {key} + - COUNT 5"],
    "gossip": ["XLEN {key}", "TTL {key}"],
    "topic": ["XREVRANGE {key} + - COUNT 5"],
    "topics": ["HGETALL {key}"],
    "control": ["XREVRANGE {key} + - COUNT 5"],
}
#: The same for the keys that are told apart by how they end.
ENDS = {
    "<capability>:agents": ["SMEMBERS {key}"],
    "<id>:journal": ["LRANGE {key} 0 -1"],
    "<id>:large": ["HKEYS {key}"],
    "<id>:audit": ["XRANGE {key} - +"],
    "<topic>:readers": ["ZRANGE {key} 0 -1 WITHSCORES"],
}


def redis_cli(url: str) -> str:
    """The redis-cli call that reaches the server at ``url``; '' for a mesh inside a process. The password is left out."""
    program = "redis-cli" if shutil.which("redis-cli") or not shutil.which("valkey-cli") else "valkey-cli"
    parts = urlsplit(url)
    words = [program]
    if parts.scheme == "unix":
        words += ["-s", unquote(parts.path)]
        database = parse_qs(parts.query).get("db", ["0"])[0]
    elif parts.scheme in ("redis", "rediss"):
        if parts.hostname and parts.hostname != "localhost":
            words += ["-h", parts.hostname]
        if parts.port and parts.port != 6379:
            words += ["-p", str(parts.port)]
        words += ["--tls"] if parts.scheme == "rediss" else []
        database = parse_qs(parts.query).get("db", [parts.path.strip("/") or "0"])[0]
    else:
        return ""
    if parts.username:
        words += ["--user", unquote(parts.username)]
    if database != "0":
        words += ["-n", database]
    return shlex.join(words)


@command(epilog="The words in <> are filled in from what this mesh holds now, so that the lines work as they are.")
@click.argument("word", required=False, metavar="[WORD]")
async def keys(mesh: Mesh, out: Output, word: str | None) -> None:
    """The keys of this mesh, with redis-cli lines; WORD shows only keys that contain it."""
    from streammesh.keys import __doc__ as layout

    cli = redis_cli(mesh.url)
    named = await _names(mesh)
    listed = []
    for key, kind, about in _ROW.findall(layout or ""):
        if word and word not in key:
            continue
        key = key.replace("{mesh}", f"{{{mesh.namespace}}}")
        example = key.replace("agent:<id>", "agent:<agent>").replace("run:<id>", "run:<run>")
        for name, real in named.items():
            example = example.replace(f"<{name}>", real)
        asks = next(
            (asks for end, asks in ENDS.items() if key.endswith(end)), ASK[key.partition("}:")[2].partition(":")[0]]
        )
        lines = [f"{cli} {ask.format(key=shlex.quote(example))}" for ask in asks] if cli else []
        listed.append({"key": key, "type": kind, "about": about, "lines": lines})
    if out.json:
        out.lines(
            [*listed, *({"about": about, "lines": [line]} for about, line in _cookbook(mesh, cli, named) if not word)]
        )
        return
    if out.quiet:
        for one in listed:
            out.line(str(one["key"]))
        return
    for one in listed:
        out.line(f"{out.style(str(one['key']), bold=True)}  {one['type']}  {one['about']}")
        for line in one["lines"]:
            out.line(f"    {out.style(line, fg='cyan')}")
    if not word:
        for about, line in _cookbook(mesh, cli, named):
            out.line(f"{out.style(about, bold=True)}")
            out.line(f"    {out.style(line, fg='cyan')}")
    if mesh.keys.shards > 1:
        out.note(
            f"this mesh has {mesh.keys.shards} shards: {mesh.keys.prefix()} is the first, {mesh.keys.prefix(1)} the next"
        )
    if not cli:
        out.note(f"{mesh.store.where} lives in a process, redis-cli cannot reach it")
    elif urlsplit(mesh.url).password:
        out.note("the password is left out of the lines: export REDISCLI_AUTH=… first")


def _cookbook(mesh: Mesh, cli: str, named: dict[str, str]) -> list[tuple[str, str]]:
    if not cli:
        return []
    stream = shlex.quote(mesh.keys.tasks(named["capability"]))
    return [
        ("Enqueue a task by hand: only `payload` is needed", f"{cli} XADD {stream} '*' payload '{{}}'"),
        ("The same from a file, whatever it holds", f"echo '{{}}' | {cli} -x XADD {stream} '*' payload"),
        ("How much is unfinished", f"{cli} XLEN {stream}"),
        ("Who has what, and for how long", f"{cli} XPENDING {stream} agents - + 10"),
        (
            "Start a run by hand: `payload` is its input",
            f"{cli} XADD {shlex.quote(mesh.keys.runs(named['workflow']))} '*' payload '{{}}'",
        ),
        ("Every key of this mesh", f"{cli} --scan --pattern {shlex.quote(mesh.keys.prefix() + '*')}"),
    ]


async def _names(mesh: Mesh) -> dict[str, str]:
    """A real capability, agent, task and run to put into the examples, where there is one."""
    from streammesh.listing import Listing
    from streammesh.record import State
    from streammesh.runlist import STATES, RunList, stream_of

    seen = await mesh.status.overview()
    busiest = sorted(seen.capabilities, key=lambda one: (-(one.waiting + one.running), -one.agents, one.capability))
    capability = busiest[0].capability if busiest else "summarize"
    runs = RunList(mesh.store, mesh.keys)
    started = (await runs.runs(STATES, limit=1)).runs
    schedules = await mesh.schedules.all()
    topics = await mesh.topics.names()
    newest = (await Listing(mesh.store, mesh.keys).tasks(set(State), limit=1)).records
    return {
        "capability": capability, "agent": seen.agents[0].id if seen.agents else "reader.1",
        "id": newest[0].id if newest else "doc-17", "client": mesh.replies.client,
        "topic": topics[0] if topics else "news", "name": schedules[0].name if schedules else "morning",
        "run": started[0].id if started else "digest-17", "workflow": stream_of(started[0]) if started else "digest",
    }  # fmt: skip


keys_command = keys
