"""The commands on meshes that are not everyday's: several shards, a full server, bytes that are no text, odd locales."""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
from pathlib import Path

import pytest
import redis

from streammesh import Mesh
from tests.cli.conftest import APP, ROOT, Cli, Spawner
from tests.eventually import eventually_sync
from tests.servers import Server


@pytest.fixture
def sharded(cli: Cli, spawn: Spawner) -> Cli:
    """A mesh of three shards, with an agent."""

    async def create() -> None:
        async with Mesh.connect(cli.url, namespace=cli.namespace, shards=3):
            pass

    asyncio.run(create())
    spawn("agent", "--app", APP).says(" ready ")
    return cli


def test_three_shards_look_like_one_mesh(sharded: Cli) -> None:
    ids = [f"t{n}" for n in range(12)]
    for id in ids:
        sharded.ok("enqueue", "greet", "name=x", "--id", id, "-q")
    for id in ids:
        assert sharded.ok("task", "wait", id).json == {"hello": "x"}
    for n in range(6):
        sharded.ok("enqueue", "greet", "name=x", "--id", f"later{n}", "--in", "1h", "-q")
        sharded("call", "refuse", "--id", f"refused{n}")
        sharded("call", "broken", "--id", f"broken{n}")
    greet = sharded.ok("info", "--json", "--sample", "0").json["capabilities"]
    assert (greet["greet"]["delayed"], greet["broken"]["dead"]) == (6, 6)
    assert set(sharded.ok("task", "ls", "-q", "-c", "greet").lines) == {*ids, *(f"later{n}" for n in range(6))}
    assert len(sharded.ok("dead", "ls", "-q").lines) == 6
    assert len(sharded.ok("dead", "rm", "--all", "-y").lines) == 6
    assert sharded.ok("agents", "ping", "--json").json["ok"] is True
    assert sharded("doctor", "-q").code == 0
    assert "this mesh has 3 shards" in sharded("keys").err
    for n in range(6):
        assert "starts in" in sharded.ok("task", "explain", f"later{n}").out
        assert sharded.ok("task", "cancel", f"later{n}").code == 0
    assert {one["type"] for one in sharded.ok("task", "tail", "-F", "--json").objects} >= {"task.dead", "agent.joined"}


def test_a_full_server_refuses_the_task_and_says_so(tmp_path: Path) -> None:
    server = Server("valkey", tmp_path)
    server.start()
    try:
        cli = Cli(server.url, "mesh")
        cli.ok("enqueue", "greet", "--id", "before", "-q")
        with redis.Redis.from_url(server.url) as client:
            client.config_set("maxmemory", 1)
        outcome = cli("enqueue", "greet", "--id", "after")
        assert (outcome.code, outcome.out) == (3, "")
        assert "is out of memory and refused the write; raise maxmemory" in outcome.err
        assert cli.ok("task", "ls", "-q").lines == ["before"]
        assert "fault" in [
            one["verdict"] for one in cli("doctor", "--json").json["findings"] if one["subject"] == "memory"
        ]
    finally:
        server.stop()


@pytest.mark.parametrize("encoding", ["ascii:strict", "utf-8:strict"])
def test_bytes_that_are_no_text_are_shown_and_escaped(cli: Cli, encoding: str) -> None:
    cli.ok("enqueue", "greet", "--id", "t", "-q")
    key = f"{{{cli.namespace}}}:task:t"
    with redis.Redis.from_url(cli.url) as client:
        client.hset(key, mapping={"error": b"\xff\x1b[31m", "payload": b"\xfe{"})
    for arguments in (["task", "show", "t"], ["task", "show", "t", "--json"], ["task", "ls"], ["task", "ls", "--json"]):
        ran = subprocess.run(
            [sys.executable, "-m", "streammesh", "-u", cli.url, "-N", cli.namespace, *arguments],
            capture_output=True, cwd=ROOT, env={"PYTHONIOENCODING": encoding, "PATH": "/usr/bin"},
        )  # fmt: skip
        assert (ran.returncode, ran.stderr) == (0, b"")
        assert b"\x1b" not in ran.stdout
        assert b"[31m" in ran.stdout
        if "--json" in arguments:
            assert json.loads(ran.stdout)["id"] == "t"


def test_an_ascii_terminal_gets_every_screen(cli: Cli) -> None:
    cli.ok("enqueue", "greet", "-q")
    cli.ok("caps", "pause", "greet")
    for arguments in (["info"], ["doctor"], ["caps", "ls"], ["keys"], ["top", "--count", "1", "--interval", "100ms"]):
        ran = subprocess.run(
            [sys.executable, "-m", "streammesh", "-u", cli.url, "-N", cli.namespace, *arguments],
            capture_output=True, cwd=ROOT, env={"PYTHONIOENCODING": "ascii:strict", "PATH": "/usr/bin"},
        )  # fmt: skip
        assert b"fault in streammesh" not in ran.stderr


def test_the_app_may_come_from_the_environment(cli: Cli, spawn: Spawner) -> None:
    spawn("agent", STREAMMESH_APP=APP, STREAMMESH_AGENT_NAME="clerk", STREAMMESH_AGENT_SLOTS="5").says(" ready ")
    (one,) = eventually_sync(lambda: cli.ok("agents", "ls", "--json").objects)
    assert (one["name"], one["slots"]) == ("clerk", 5)


def test_errors_are_coloured_only_where_it_is_wanted(cli: Cli) -> None:
    assert "\x1b[" in cli("--color", "always", "task", "show", "nowhere").err
    assert "\x1b[" not in cli("--color", "never", "task", "show", "nowhere").err
    assert "\x1b[" not in cli("task", "show", "nowhere").err
