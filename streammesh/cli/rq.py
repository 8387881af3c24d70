"""`rq`: the mesh beside RQ: bridge its functions, look at its queues, move their jobs over, read its cron files."""

from __future__ import annotations

import asyncio
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from streammesh.cli.agent import LOG
from streammesh.cli.output import Output
from streammesh.cli.session import Noun, Session, command

if TYPE_CHECKING:
    from streammesh.mesh import Mesh
    from streammesh.rq.queues import Found

__all__ = ["rq_command"]


@click.group("rq", cls=Noun)
def rq_command() -> None:
    """RQ beside the mesh: bridge its functions, look at its queues, move them over."""


def _rq_url(function: Any) -> Any:
    return click.option(
        "--rq-url", metavar="URL", envvar="RQ_REDIS_URL", help="The server of RQ, where it is not the mesh's own."
    )(function)


@command(
    rq_command,
    epilog="Example: streammesh rq bridge reports.build@high mails.send=send-mail; RQ's workers must read JSON: rq worker -S json high",
)
@click.argument("functions", metavar="FUNCTION[@QUEUE][=CAPABILITY]...", nargs=-1, required=True)
@click.option("--name", default="rq-bridge", show_default=True, metavar="NAME", help="The name of the agent.")
@click.option("--slots", type=click.IntRange(1), default=128, show_default=True, metavar="N", help="Jobs at once.")
@click.option("--timeout", type=float, default=180.0, show_default=True, metavar="SECONDS", help="For one job.")
@click.option("--retries", type=click.IntRange(0), default=0, metavar="N", help="Attempts that follow a failure.")
@click.option("--no-callbacks", is_flag=True, help="For workers that do not have streammesh installed.")
@_rq_url
@click.option("--burst", is_flag=True, help="End when nothing waits.")
def bridge(
    session: Session, functions: tuple[str, ...], name: str, slots: int, timeout: float, retries: int, no_callbacks: bool,
    rq_url: str | None, burst: bool,
) -> int:  # fmt: skip
    """Serve an agent that has FUNCTION run by RQ's workers, as a capability of the mesh."""
    from streammesh.agent import Agent
    from streammesh.rq.queues import capability_of

    session.log("WARNING" if session.quiet else "INFO", LOG)
    agent = Agent(name, slots=slots)
    for word in functions:
        rest, _, capability = word.partition("=")
        function, _, queue = rest.partition("@")
        agent.rq(
            function, queue=queue or "default", capability=capability or capability_of(function), url=rq_url, timeout=timeout,
            retries=retries, callbacks=not no_callbacks,
        )  # fmt: skip
    url, namespace = session.settings()
    return agent.run(url, namespace=namespace, burst=burst)


def _client(mesh: Mesh, rq_url: str | None) -> Any:
    from streammesh.connections import blocking_client
    from streammesh.errors import ConfigError

    if find_spec("rq") is None:
        raise ConfigError("RQ is not installed here: pip install 'streammesh[rq]'")
    return blocking_client(rq_url or mesh.url)


@command(rq_command)
@_rq_url
async def info(mesh: Mesh, out: Output, rq_url: str | None) -> None:
    """RQ's queues and the mesh's capabilities, side by side."""
    from streammesh.rq.queues import numbers

    client = _client(mesh, rq_url)
    queues = await asyncio.to_thread(numbers, client)
    capabilities = await mesh.status.capabilities()
    if out.json:
        fields = ("waiting", "started", "scheduled", "deferred", "failed", "finished", "workers")
        out.object({
            "rq": [{"queue": one.queue, **{field: getattr(one, field) for field in fields}} for one in queues],
            "mesh": [{"capability": one.capability, "waiting": one.waiting, "running": one.running, "dead": one.dead, "agents": one.agents} for one in capabilities],
        })  # fmt: skip
        return
    if queues:
        rows = [
            tuple(map(str, (one.queue, one.waiting, one.started, one.scheduled, one.failed, one.finished, one.workers)))
            for one in queues
        ]
        heads = ("QUEUE OF RQ", "WAITING", "STARTED", "SCHEDULED", "FAILED", "FINISHED", "WORKERS")
        out.table(heads, rows, right=heads[1:])
    else:
        out.note("RQ has no queue at this server; give its own with --rq-url")
    if capabilities:
        more = [
            tuple(map(str, (one.capability, one.waiting, one.running, one.dead, one.agents))) for one in capabilities
        ]
        others = ("CAPABILITY", "WAITING", "RUNNING", "DEAD", "AGENTS")
        out.table(others, more, right=others[1:])


@command(rq_command, unsafe=False, epilog="A job keeps its id as a task; what cannot be moved stays where it is.")
@click.argument("queue")
@click.option("--dry-run", is_flag=True, help="Say what would be moved, and move nothing.")
@click.option("--map", "maps", multiple=True, metavar="FUNCTION=CAPABILITY", help="The capability that takes the jobs of a function (default: its name).")  # fmt: skip
@click.option("--trust-pickle", is_flag=True, help="Read pickled jobs too; whoever wrote them can run anything here.")
@_rq_url
async def drain(
    mesh: Mesh, out: Output, queue: str, dry_run: bool, maps: tuple[str, ...], trust_pickle: bool, rq_url: str | None
) -> int:
    """Move the waiting jobs of QUEUE into the mesh, as tasks."""
    from streammesh.rq.queues import capability_of, take, waiting

    named = dict(_pair(word) for word in maps)
    client = _client(mesh, rq_url)

    def capability(found: Found) -> str:
        return named.get(found.function) or capability_of(found.function)

    moved: list[tuple[Found, bool]]
    if dry_run:
        moved = [(found, not found.problem) for found in await asyncio.to_thread(waiting, client, queue, trust_pickle=trust_pickle)]  # fmt: skip
    else:
        loop = asyncio.get_running_loop()

        def enqueue(found: Found) -> None:
            work = mesh.enqueue(capability(found), dict(found.payload), id=found.id)
            asyncio.run_coroutine_threadsafe(work, loop).result()

        moved = await asyncio.to_thread(lambda: list(take(client, queue, enqueue, trust_pickle=trust_pickle)))
    for found, good in moved:
        if out.json:
            out.lines([{"job": found.id, "function": found.function, "capability": capability(found) if good else None, "moved": good and not dry_run, "problem": found.problem or None}])  # fmt: skip
        elif out.quiet:
            out.line(found.id)
        else:
            out.line(
                f"{found.id}  {found.function} -> {capability(found)}"
                if good
                else f"{found.id}  stays: {found.problem}"
            )
    count = sum(one for _, one in moved)
    stay = len(moved) - count
    out.note(f"{count} {'would be ' if dry_run else ''}moved, {stay} {'would stay' if dry_run else 'stayed'}")
    return 1 if stay else 0


def _pair(word: str) -> tuple[str, str]:
    function, equals, capability = word.partition("=")
    if not (function and equals and capability):
        raise click.BadParameter(f"{word!r} is not FUNCTION=CAPABILITY, as in reports.build=build-report")
    return function, capability


@command(rq_command, unsafe=False, epilog="The file is executed, as `rq cron` does it; cron expressions are in --tz.")
@click.argument("file", type=click.Path(path_type=Path))
@click.option("--write", is_flag=True, help="Add the schedules; without it they are only shown.")
@click.option("--tz", default="UTC", show_default=True, metavar="ZONE", help="The zone that RQ's cron ran in.")
async def import_cron(mesh: Mesh, out: Output, file: Path, write: bool, tz: str) -> int:
    """Make schedules of what FILE registers with RQ's cron: one start for each time, however many agents there are."""
    from streammesh.rq.queues import capability_of, crons

    found = await asyncio.to_thread(crons, file)
    for one in found:
        task = capability_of(one.function)
        if write and not one.problem:
            await mesh.schedule(one.name, task=task, cron=one.cron, every=one.every, tz=tz, input=one.payload)
        when = f"cron {one.cron!r}" if one.cron else f"every {one.every}s"
        if out.json:
            out.lines([{"schedule": one.name, "task": task, "cron": one.cron, "every": one.every, "tz": tz, "input": dict(one.payload), "written": write and not one.problem, "problem": one.problem or None}])  # fmt: skip
        else:
            out.line(f"{one.name}  {when}  -> {task}" + (f"  left out: {one.problem}" if one.problem else ""))
    bad = sum(bool(one.problem) for one in found)
    out.note(f"{(n := len(found) - bad)} schedule{'s' if n != 1 else ''} {'written' if write else 'found; --write adds them'}" + (f", {bad} left out" if bad else ""))  # fmt: skip
    return 1 if bad else 0
