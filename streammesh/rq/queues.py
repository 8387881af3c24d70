"""Looking at RQ's queues, moving their jobs into the mesh, and reading what its cron files register. Blocking, as RQ is."""

from __future__ import annotations

import inspect
import logging
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Any

from streammesh.errors import ConfigError

__all__ = ["Cron", "Found", "Numbers", "capability_of", "crons", "numbers", "take", "waiting"]

#: Where jobs are while they are on their way: `take` is repeated from there after a crash.
LEAVING = "rq:streammesh:leaving:"


@dataclass(frozen=True, slots=True)
class Numbers:
    """One queue: jobs that wait and jobs in each of RQ's registries, and its workers."""

    queue: str
    waiting: int
    started: int
    scheduled: int
    deferred: int
    failed: int
    finished: int
    workers: int


@dataclass(frozen=True, slots=True)
class Found:
    """One waiting job: what it calls, with which keyword arguments; or why it cannot become a task."""

    id: str
    function: str
    payload: Mapping[str, Any]
    problem: str = ""


@dataclass(frozen=True, slots=True)
class Cron:
    """One job of a cron file, as a schedule; or why it cannot be one. ``every`` in seconds."""

    name: str
    function: str
    queue: str
    cron: str | None
    every: int | None
    payload: Mapping[str, Any]
    problem: str = ""


def numbers(client: Any) -> list[Numbers]:
    """Every queue that RQ knows, by name."""
    from rq import Queue, Worker

    found = []
    for queue in sorted(Queue.all(connection=client, serializer="json"), key=lambda queue: queue.name):
        registries = (
            queue.started_job_registry, queue.scheduled_job_registry, queue.deferred_job_registry,
            queue.failed_job_registry, queue.finished_job_registry,
        )  # fmt: skip
        # Their own counts would clean up, and so change what is only looked at.
        started, scheduled, deferred, failed, finished = (int(client.zcard(registry.key)) for registry in registries)
        workers = Worker.count(connection=client, queue=queue)
        found.append(Numbers(queue.name, queue.count, started, scheduled, deferred, failed, finished, workers))
    return found


def waiting(client: Any, queue: str, *, trust_pickle: bool = False) -> list[Found]:
    """The jobs that wait in a queue, in their order, those that `take` had begun to move before them."""
    ids = [*client.lrange(LEAVING + queue, 0, -1)[::-1], *client.lrange(f"rq:queue:{queue}", 0, -1)]
    return [_found(client, id.decode(), trust_pickle=trust_pickle) for id in ids]


def take(
    client: Any, queue: str, enqueue: Callable[[Found], None], *, trust_pickle: bool = False
) -> Iterator[tuple[Found, bool]]:
    """Move every waiting job: out of RQ's queue in one step, then ``enqueue`` (with the job's id), then it is deleted.

    Yields (job, whether it was moved). No worker of RQ can begin a job that is on its way; after a crash in between the
    next call goes on with it, and its id makes the task the same one. What cannot be moved stays in the queue.
    """
    home, leaving = f"rq:queue:{queue}", LEAVING + queue
    for _ in range(client.llen(leaving) + client.llen(home)):
        # What was begun comes first; its place is the right end, as that of RQ's next job is the left one.
        id = client.lindex(leaving, -1) or client.lmove(home, leaving, "LEFT", "LEFT")
        if id is None:
            return
        found = _found(client, id.decode(), trust_pickle=trust_pickle)
        if found.problem:
            # Behind the others: each is looked at once.
            client.lmove(leaving, home, "RIGHT", "RIGHT")
            yield found, False
            continue
        enqueue(found)
        client.delete(f"rq:job:{found.id}")
        client.lrem(leaving, 1, id)
        yield found, True


def _found(client: Any, id: str, *, trust_pickle: bool) -> Found:
    from rq.exceptions import DeserializationError, NoSuchJobError
    from rq.job import Job

    try:
        # RQ reads an id as of a pickled job, without unpickling it, when only its id and status are asked for.
        job = Job.fetch(id, connection=client, serializer="json")
    except NoSuchJobError:
        return Found(id, "", {}, "its record is gone")
    try:
        function, args, kwargs = str(job.func_name), job.args, job.kwargs
    except (DeserializationError, UnicodeDecodeError, ValueError):
        if not trust_pickle:
            return Found(
                id, "", {}, "pickled: whoever wrote it could run anything here; --trust-pickle if that was you"
            )
        job = Job.fetch(id, connection=client, serializer="pickle")
        try:
            function, args, kwargs = str(job.func_name), job.args, job.kwargs
        except Exception as error:
            return Found(id, "", {}, f"cannot be read: {error}")
    if args:
        named = _named(function, list(args), kwargs)
        if named is None:
            return Found(
                id, function, kwargs, "has positional arguments, and its function cannot be imported to name them"
            )
        kwargs = named
    return Found(id, function, kwargs)


def _named(function: str, args: list[Any], kwargs: Mapping[str, Any]) -> dict[str, Any] | None:
    """All arguments by name, where the function can be imported here."""
    module, _, name = function.rpartition(".")
    try:
        return _bound(getattr(import_module(module), name), args, kwargs)
    except (ImportError, AttributeError, ValueError):
        return None


def capability_of(function: str) -> str:
    """The capability that a function has unless it is given another: its name in the letters of capabilities."""
    return re.sub(r"[^a-z0-9._-]", "-", function.lower())


def crons(file: Path) -> list[Cron]:
    """What a cron file of RQ registers by ``rq.cron.register``. The file is executed, as RQ does it. Raises ConfigError."""
    from rq.cron import CronScheduler

    if not file.is_file():
        raise ConfigError(f"there is no file {file}")
    scheduler = CronScheduler(connection=_Nowhere(), logging_level=logging.CRITICAL)  # type: ignore[arg-type]
    try:
        scheduler.load_config_from_file(str(file.resolve()))
    except Exception as error:
        raise ConfigError(f"{file} cannot be read as a cron file of RQ: {error}") from error
    found: list[Cron] = []
    for job in scheduler.get_jobs():
        name = base = capability_of(job.name)
        number = 1
        while name in {one.name for one in found}:
            number += 1
            name = f"{base}-{number}"
        payload: Mapping[str, Any] | None = job.kwargs
        if job.args:
            function = job.func
            payload = _bound(function, job.args, job.kwargs) if function else None
        problem = "" if payload is not None else "has positional arguments that cannot be named"
        found.append(Cron(name, job.func_name, job.queue_name, job.cron, job.interval, payload or {}, problem))
    return found


def _bound(function: Callable[..., Any], args: Sequence[Any], kwargs: Mapping[str, Any]) -> dict[str, Any] | None:
    """All arguments by name; None where the function has some without."""
    odd = (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.VAR_KEYWORD)
    try:
        bound = inspect.signature(function).bind(*args, **kwargs)
    except (TypeError, ValueError):
        return None
    if any(parameter.kind in odd for parameter in bound.signature.parameters.values()):
        return None
    return dict(bound.arguments)


class _Nowhere:
    """Stands where RQ's scheduler wants a connection, which reading a file does not need."""

    connection_pool: Any = None
