"""Servers that are not what they should be, and URLs with typos: a typed error each, with cause and cure, and no password."""

from __future__ import annotations

import asyncio
import logging
import traceback
from collections.abc import Iterator
from pathlib import Path

import pytest
from redis.asyncio import Redis

from streammesh import Agent, Mesh
from streammesh.errors import (
    ConfigError,
    InvalidURL,
    MeshError,
    MeshMismatch,
    ServerFull,
    ServerUnfit,
    StoreUnavailable,
)
from streammesh.testing import run_until_idle
from tests.eventually import eventually
from tests.fake_server import Answer, FakeServer, bulk, info
from tests.servers import Server

CANARY = "s3cr3t-canary"


@pytest.fixture(scope="module")
def _own(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    server = Server("valkey", tmp_path_factory.mktemp("own"))
    server.start()
    yield server
    server.stop()


@pytest.fixture
def own(_own: Server) -> Iterator[Server]:
    """A server whose settings the test may change: they are put back afterwards."""
    yield _own

    async def put_back() -> None:
        async with Redis.from_url(_own.url, password=CANARY) as redis:
            await redis.execute_command("REPLICAOF", "NO", "ONE")
            await redis.config_set("maxmemory", 0)
            await redis.config_set("maxmemory-policy", "noeviction")
            await redis.config_set("requirepass", "")
            await redis.execute_command("ACL", "DELUSER", "limited")
            await redis.flushall()

    asyncio.run(put_back())


# -- servers that would lose work


@pytest.mark.parametrize(
    ("said", "error"),
    [
        ({"redis_version": "6.2.14"}, r"is version 6\.2\.14; Redis 7\.0 or Valkey 8 is needed"),
        ({"redis_version": "2.8.4"}, r"is version 2\.8\.4"),
        ({"role": "slave"}, "read-only replica; give the URL of its primary"),
        ({"maxmemory_policy": "allkeys-lru"}, "allkeys-lru.*CONFIG SET maxmemory-policy noeviction"),
        ({"maxmemory_policy": "volatile-ttl"}, "would delete tasks in silence"),
    ],
)
async def test_an_unfit_server_is_refused_before_anything_is_written(said: dict[str, str], error: str) -> None:
    async with FakeServer({"INFO": info(**said)}) as server:
        with pytest.raises(ServerUnfit, match=error):
            await Mesh.connect(server.url, patience=0).open()
        assert not [command for command in server.asked if command[0].startswith(b"EVAL")]


async def test_an_evicting_server_is_taken_by_who_says_so(own: Server, namespace: str) -> None:
    async with Redis.from_url(own.url) as redis:
        await redis.config_set("maxmemory-policy", "allkeys-lru")
    with pytest.raises(ServerUnfit):
        await Mesh.connect(own.url, namespace=namespace).open()
    async with Mesh.connect(own.url, namespace=namespace, unsafe=True) as mesh:
        assert (await mesh.enqueue("take")).created


async def test_a_server_that_is_still_loading_is_waited_for() -> None:
    answers = iter([b"-LOADING Redis is loading the dataset in memory\r\n"] * 3 + [b"*4\r\n+ok\r\n:1\r\n:1\r\n+\r\n"])
    answering: dict[str, Answer] = {"INFO": info(loading="1"), "EVALSHA": lambda _: next(answers)}
    async with FakeServer(answering) as server, Mesh.connect(server.url, patience=5) as mesh:
        assert mesh.keys.shards == 1


@pytest.mark.parametrize(
    ("refusal", "cause"),
    [
        (b"-LOADING Redis is loading the dataset in memory\r\n", "loading"),
        (b"-MISCONF Redis is configured to save RDB snapshots, but it's unable to persist to disk\r\n", "unable to persist"),
        (b"-READONLY You can't write against a read only replica.\r\n", "read only replica"),
        (b"-MASTERDOWN Link with MASTER is down\r\n", "MASTER is down"),
        (b"-BUSY Redis is busy running a script.\r\n", "busy running a script"),
        (b"-ERR max number of clients reached\r\n", "max number of clients"),
    ],
)  # fmt: skip
async def test_a_refusal_that_does_not_pass_is_told_when_patience_ends(refusal: bytes, cause: str) -> None:
    async with FakeServer({"INFO": info(), "EVALSHA": refusal}) as server:
        with pytest.raises(StoreUnavailable, match=cause) as caught:
            await Mesh.connect(server.url, patience=0.2).open()
        assert "is it running" not in str(caught.value)
        assert len([command for command in server.asked if command[0] == b"EVALSHA"]) > 1


async def test_what_speaks_no_redis_is_told_as_that() -> None:
    async with FakeServer({}, raw=b"HTTP/1.1 400 Bad Request\r\n\r\n") as server:
        with pytest.raises(MeshError, match=r"127\.0\.0\.1:\d+"):
            await Mesh.connect(server.url, patience=0.2).open()


async def test_nobody_listens_there() -> None:
    with pytest.raises(StoreUnavailable, match=r"127\.0\.0\.1:1.*is it running"):
        await Mesh.connect("redis://127.0.0.1:1", patience=0.2).open()
    with pytest.raises(StoreUnavailable, match=r"/nowhere\.sock"):
        await Mesh.connect("unix:///tmp/nowhere.sock", patience=0).open()
    with pytest.raises(StoreUnavailable, match=r"no-such-host\.invalid"):
        await Mesh.connect("redis://no-such-host.invalid", patience=0).open()


async def test_an_answer_to_another_question_is_no_crash() -> None:
    async with FakeServer({"INFO": bulk("")}) as server:
        with pytest.raises(ServerUnfit, match="version 0"):
            await Mesh.connect(server.url, patience=0).open()


async def test_a_full_server_refuses_new_work_and_lets_the_old_be_finished(own: Server, namespace: str) -> None:
    agent = Agent("finisher")

    @agent.capability("take")
    async def take(n: int) -> int:
        return n

    async with Redis.from_url(own.url) as redis, Mesh.connect(own.url, namespace=namespace, patience=0.2) as mesh:
        tasks = await mesh.enqueue_many("take", [{"n": n} for n in range(20)])
        await redis.config_set("maxmemory", 1)
        with pytest.raises(ServerFull, match=r"out of memory.*raise maxmemory"):
            await mesh.enqueue("take", n=99)
        report = await run_until_idle(mesh, agent, timeout=10)
        assert report.succeeded == len(tasks)
        await redis.config_set("maxmemory", 0)
        assert (await mesh.enqueue("take", n=99)).created


async def test_a_primary_that_turns_into_a_replica_is_waited_for(own: Server, namespace: str) -> None:
    async with Redis.from_url(own.url) as redis, Mesh.connect(own.url, namespace=namespace, patience=5) as mesh:
        await redis.execute_command("REPLICAOF", "127.0.0.1", "1")
        with pytest.raises(ServerUnfit, match="replica"):
            await Mesh.connect(own.url, namespace=namespace).open()
        enqueueing = asyncio.create_task(mesh.enqueue("take"))
        await asyncio.wait({enqueueing}, timeout=0.1)
        assert not enqueueing.done()
        await redis.execute_command("REPLICAOF", "NO", "ONE")
        assert (await enqueueing).created


async def test_a_mesh_of_another_shape_is_refused(own: Server, namespace: str) -> None:
    async with Mesh.connect(own.url, namespace=namespace, shards=3) as mesh:
        with pytest.raises(MeshMismatch, match="created with 3 shards, not 2; leave shards= out"):
            await Mesh.connect(own.url, namespace=namespace, shards=2).open()
        async with Mesh.connect(own.url, namespace=namespace) as same:
            assert same.keys.shards == 3
        await mesh.store.command("HSET", mesh.keys.meta, "layout", 99)
        with pytest.raises(MeshMismatch, match=r"layout 99.*upgrade streammesh"):
            await Mesh.connect(own.url, namespace=namespace).open()


# -- who may not


async def test_a_wrong_password_is_told_at_once(own: Server, namespace: str) -> None:
    async with Redis.from_url(own.url) as redis:
        await redis.config_set("requirepass", CANARY)
    port = own.port
    for url in (f"redis://127.0.0.1:{port}", f"redis://:wrong-{CANARY}@127.0.0.1:{port}", f"redis://ada:{CANARY}@127.0.0.1:{port}"):  # fmt: skip
        with pytest.raises(ConfigError, match="check user and password in the URL") as caught:
            await Mesh.connect(url, namespace=namespace, patience=10).open()
        assert CANARY not in _everything(caught.value)
    async with Mesh.connect(f"redis://:{CANARY}@127.0.0.1:{port}", namespace=namespace) as mesh:
        assert (await mesh.enqueue("take")).created


@pytest.mark.parametrize(
    "rights",
    ["+@all -info ~* &*", "+@all -evalsha -eval ~* &*", "+@all -xadd ~* &*", "+@all ~another:* &*"],
)  # fmt: skip
async def test_a_user_without_the_rights_is_told_which(own: Server, namespace: str, rights: str) -> None:
    async with Redis.from_url(own.url) as redis:
        await redis.execute_command("ACL", "SETUSER", "limited", "reset", "on", f">{CANARY}", *rights.split())
    mesh = Mesh.connect(f"redis://limited:{CANARY}@127.0.0.1:{own.port}", namespace=namespace, patience=1)
    with pytest.raises(ConfigError, match="the ACL") as caught:
        async with mesh:
            await mesh.enqueue("take")
    assert CANARY not in _everything(caught.value)


# -- URLs

TYPOS = {
    "no scheme": "{secret}127.0.0.1:6379",
    "one slash": "redis:/{secret}127.0.0.1:6379",
    "no colon": "redis//{secret}127.0.0.1:6379",
    "a letter too few": "reds://{secret}127.0.0.1:6379",
    "the other name": "valkey://{secret}127.0.0.1:6379",
    "another world": "http://{secret}127.0.0.1:6379",
    "port in words": "redis://{secret}127.0.0.1:port",
    "port too large": "redis://{secret}127.0.0.1:99999",
    "database in words": "redis://{secret}127.0.0.1:6379/zero",
    "half an IPv6": "redis://{secret}[::1:6379",
    "a blank": " redis://{secret}127.0.0.1:6379",
    "an unknown option": "redis://{secret}127.0.0.1:6379?socket_timeot=5",
    "an option without sense": "redis://{secret}127.0.0.1:6379?socket_timeout=long",
    "folder missing": "embedded://",
}


@pytest.mark.parametrize("typo", TYPOS)
@pytest.mark.parametrize("secret", ["", f"ada:{CANARY}@", f":{CANARY}@"], ids=["open", "user", "password"])
async def test_a_typo_in_a_url_is_an_error_that_tells_no_password(typo: str, secret: str) -> None:
    with pytest.raises(ConfigError) as caught:
        await Mesh.connect(TYPOS[typo].format(secret=secret), patience=0).open()
    assert CANARY not in _everything(caught.value)


@pytest.mark.parametrize("odd", ["/", "#", "?", "@", ":", "[", "%", " ", "/?#@:["])
async def test_an_odd_character_in_a_password_lets_nothing_out(odd: str) -> None:
    """Such a character should have been percent-encoded; half of the password must not end up in an error."""
    url = f"redis://ada:{CANARY}{odd}{CANARY}@127.0.0.1:1/0"
    with pytest.raises(MeshError) as caught:
        await Mesh.connect(url, patience=0).open()
    assert CANARY not in _everything(caught.value)


def test_hints_lead_to_the_right_url() -> None:
    for wrong, hint in (("reds", "redis://"), ("valkey", "redis://"), ("redis+ssl", "rediss://")):
        with pytest.raises(InvalidURL, match=f"did you mean {hint}"):
            Mesh.connect(f"{wrong}://127.0.0.1")
    with pytest.raises(InvalidURL, match="something like redis://localhost:6379"):
        Mesh.connect("localhost:6379")
    with pytest.raises(InvalidURL, match=r"known: redis:// rediss:// unix:// memory:// embedded://"):
        Mesh.connect("amqp://localhost")


async def test_a_folder_that_cannot_be_is_told(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(MeshError, match="file"):
        await Mesh.connect(f"embedded://{tmp_path}/file").open()


async def test_no_password_comes_out_anywhere_while_the_server_dies(tmp_path: Path, namespace: str, caplog: pytest.LogCaptureFixture) -> None:  # fmt: skip
    """An agent and a client at work, the server killed under them: reprs, errors and logs of all levels are clean."""
    caplog.set_level(logging.DEBUG)
    server = Server("valkey", tmp_path)
    server.start()
    async with Redis.from_url(server.url) as redis:
        await redis.config_set("requirepass", CANARY)
    url = f"redis://:{CANARY}@127.0.0.1:{server.port}/0"
    agent = Agent("witness", lease=0.4)
    agent.capability("take")(lambda: None)
    said = []
    async with Mesh.connect(url, namespace=namespace, patience=0.2) as mesh:
        serving = asyncio.create_task(agent.serve(mesh))
        task = await mesh.enqueue("take")
        await task.result(5)
        said += [repr(mesh), repr(task), repr(agent), repr(mesh.store), str(mesh.store.where), repr(mesh.tasks)]
        server.kill()
        for attempt in (mesh.enqueue("take"), mesh.agents(), task.result(), mesh.broadcast("x")):
            with pytest.raises(StoreUnavailable) as caught:
                await attempt
            said.append(_everything(caught.value))
        await eventually(lambda: "no beat" in caplog.text)
        agent.stop()
        await asyncio.wait({serving}, timeout=10)
    assert CANARY not in "\n".join(said)
    assert CANARY not in caplog.text


def _everything(error: BaseException) -> str:
    """What a log, a crash report or a terminal could show of an error."""
    return "".join(traceback.format_exception(error)) + repr(error) + str(error)
