"""`streammesh rq`: both worlds side by side, jobs that move over, cron files that become schedules."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from redis import Redis
from rq import Queue

from streammesh.rq.queues import LEAVING, Found, take
from tests.cli.conftest import ROOT, Cli
from tests.eventually import eventually_sync
from tests.rq import reports


@pytest.fixture
def cli(url: str, namespace: str) -> Cli:
    return Cli(url, namespace)


@pytest.fixture
def client(url: str) -> Iterator[Redis]:
    with Redis.from_url(url) as client:
        yield client


@pytest.fixture
def queue(client: Redis, namespace: str) -> Queue:
    return Queue(namespace, connection=client, serializer="json")


def ids_in(client: Redis, queue: Queue) -> list[str]:
    return [bytes(id).decode() for id in client.lrange(queue.key, 0, -1)]  # type: ignore[arg-type]


def test_info_shows_both(cli: Cli, queue: Queue) -> None:
    queue.enqueue("tests.rq.reports.build", title="a")
    cli.ok("enqueue", "summarize", "text=hi")
    said = cli.ok("rq", "info", "--json").json
    mine = next(one for one in said["rq"] if one["queue"] == queue.name)
    assert (mine["waiting"], mine["started"], mine["workers"]) == (1, 0, 0)
    assert [(one["capability"], one["waiting"]) for one in said["mesh"]] == [("summarize", 1)]
    assert "QUEUE OF RQ" in cli.ok("rq", "info").out


def test_drain_moves_jobs_in_order_and_leaves_what_it_cannot_read(cli: Cli, queue: Queue, client: Redis) -> None:
    ids = [queue.enqueue("tests.rq.reports.build", title=str(n)).id for n in range(3)]
    named = queue.enqueue("tests.rq.reports.build", "by place", 4).id
    opaque = queue.enqueue("nowhere.at_all", "by place").id
    pickled = Queue(queue.name, connection=client).enqueue(reports.build, "x").id
    before = client.lrange(queue.key, 0, -1)

    dry = cli("rq", "drain", queue.name, "--dry-run", "--json")
    assert (dry.code, [one["moved"] for one in dry.objects]) == (1, [False] * 6)
    assert client.lrange(queue.key, 0, -1) == before

    done = cli("rq", "drain", queue.name, "--map", "tests.rq.reports.build=build", "--json")
    assert done.code == 1
    assert [(one["job"], one["moved"]) for one in done.objects] == [
        *((id, True) for id in ids), (named, True), (opaque, False), (pickled, False),
    ]  # fmt: skip
    problems = {one["job"]: one["problem"] for one in done.objects if one["problem"]}
    assert "positional" in problems[opaque]
    assert "--trust-pickle" in problems[pickled]
    assert cli.ok("task", "show", named, "--json").json["payload"] == {"title": "by place", "pages": 4}
    assert ids_in(client, queue) == [opaque, pickled]
    assert not client.exists(*(f"rq:job:{id}" for id in ids))

    cli("rq", "drain", queue.name, "--trust-pickle", "--map", "tests.rq.reports.build=build")
    assert cli.ok("task", "show", pickled, "--json").json["payload"] == {"title": "x"}


def test_a_job_that_was_on_its_way_when_we_died_arrives_once(cli: Cli, queue: Queue, client: Redis) -> None:
    first, second = (queue.enqueue("tests.rq.reports.build", title=title).id for title in ("a", "b"))

    def dies(found: Found) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        list(take(client, queue.name, dies))
    # No worker of RQ can have it meanwhile.
    assert ids_in(client, queue) == [second]
    assert client.lrange(LEAVING + queue.name, 0, -1) == [first.encode()]
    assert [one["job"] for one in cli.ok("rq", "drain", queue.name, "--json").objects] == [first, second]
    assert cli.state(first) == cli.state(second) == "queued"
    assert not client.exists(LEAVING + queue.name, queue.key)


def test_cron_files_become_schedules(cli: Cli) -> None:
    file = str(ROOT / "tests" / "rq" / "cron_config.py")
    shown = cli("rq", "import-cron", file, "--json")
    assert shown.code == 1
    assert [(one["schedule"], one["cron"], one["every"], one["written"]) for one in shown.objects] == [
        ("tests.rq.reports.build", "0 7 * * 1", None, False),
        ("tests.rq.reports.note", None, 60, False),
        ("builtins.print", None, 60, False),
    ]
    assert shown.objects[1]["input"] == {"path": "/tmp/x", "word": "hi"}
    assert "positional" in shown.objects[2]["problem"]
    assert cli.ok("schedule", "ls", "--json").objects == []
    cli("rq", "import-cron", file, "--write", "--tz", "Europe/Berlin")
    listed = {one["name"] for one in cli.ok("schedule", "ls", "--json").objects}
    assert listed == {"tests.rq.reports.build", "tests.rq.reports.note"}
    assert "there is no file" in cli("rq", "import-cron", "nowhere.py").err


def test_the_bridge_serves_functions_of_rq(cli: Cli, url: str, namespace: str, tmp_path: Path) -> None:
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    worker = subprocess.Popen(
        [sys.executable, "-m", "rq.cli", "worker", "-S", "json", "--quiet", "--url", url, namespace],
        cwd=ROOT, env=environment, stdout=subprocess.DEVNULL,
    )  # fmt: skip
    bridge = subprocess.Popen(
        [sys.executable, "-m", "streammesh", "-u", url, "-N", namespace, "-q", "rq", "bridge", f"tests.rq.reports.build@{namespace}=build"],
        cwd=tmp_path, env=environment,
    )  # fmt: skip
    try:
        eventually_sync(lambda: "rq-bridge" in cli("agents", "ls").out, timeout=20)
        assert cli.ok("call", "build", "title=Q3", "pages:=2").json["title"] == "Q3"
    finally:
        bridge.terminate()
        assert bridge.wait(20) == 143
        worker.kill()
        worker.wait()


def test_a_word_that_is_no_function_is_said(cli: Cli) -> None:
    said = cli("rq", "bridge", "build")
    assert said.code != 0
    assert "dotted name such as reports.build" in said.err
