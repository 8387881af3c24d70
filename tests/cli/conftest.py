"""How the tests call `streammesh`: in this process for speed, as a process of its own where that is what is tested."""

from __future__ import annotations

import io
import json
import os
import secrets
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import redirect_stderr, redirect_stdout
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import redis

from streammesh.cli import run
from tests.eventually import eventually_sync
from tests.servers import Server

ROOT = Path(__file__).resolve().parents[2]
APP = "tests.cli.shop:agent"


@dataclass(frozen=True)
class Outcome:
    """What one call of `streammesh` left behind."""

    code: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        return json.loads(self.out)

    @property
    def objects(self) -> list[Any]:
        return [json.loads(line) for line in self.out.splitlines()]

    @property
    def lines(self) -> list[str]:
        return self.out.splitlines()


class Cli:
    """`cli("enqueue", "greet", "name=Ada")` on one mesh, in this process."""

    def __init__(self, url: str, namespace: str) -> None:
        self.url = url
        self.namespace = namespace

    def __call__(self, *arguments: str, stdin: str = "", url: str | None = None) -> Outcome:
        out, err, before = io.StringIO(), io.StringIO(), sys.stdin
        sys.stdin = io.StringIO(stdin)
        try:
            with redirect_stdout(out), redirect_stderr(err):
                code = run(["-u", url or self.url, "-N", self.namespace, *arguments])
        finally:
            sys.stdin = before
        return Outcome(code, out.getvalue(), err.getvalue())

    def ok(self, *arguments: str, stdin: str = "") -> Outcome:
        """The same, and it must succeed."""
        outcome = self(*arguments, stdin=stdin)
        assert outcome.code == 0, outcome
        return outcome

    def redis(self, *words: str | int) -> Any:
        """One command to the server, past everything that is tested here."""
        with redis.Redis.from_url(self.url, decode_responses=True, protocol=2) as client:
            return client.execute_command(*words)

    def state(self, id: str) -> str:
        return self("task", "show", id, "-q").out.strip()


class Process:
    """`streammesh` as a process of its own; stdout and stderr go to files."""

    def __init__(self, folder: Path, arguments: list[str], environment: dict[str, str], cwd: Path) -> None:
        self._out, self._err = folder / f"{secrets.token_hex(4)}.out", folder / f"{secrets.token_hex(4)}.err"
        with self._out.open("wb") as out, self._err.open("wb") as err:
            self.popen = subprocess.Popen(
                [sys.executable, "-m", "streammesh", *arguments], stdin=subprocess.DEVNULL, stdout=out, stderr=err,
                env=environment, cwd=cwd, start_new_session=True,
            )  # fmt: skip

    @property
    def out(self) -> str:
        return self._out.read_text()

    @property
    def err(self) -> str:
        return self._err.read_text()

    def says(self, word: str, times: int = 1, timeout: float = 20.0) -> None:
        """Wait until that many lines hold the word."""

        def said() -> bool:
            text = self.out + self.err
            assert self.popen.poll() is None or text.count(word) >= times, f"ended with {self.popen.poll()}: {text}"
            assert text.count(word) >= times, text
            return True

        eventually_sync(said, timeout=timeout, what=f"{word!r} is said {times} times")

    def send(self, number: signal.Signals) -> None:
        self.popen.send_signal(number)

    def ends(self, timeout: float = 20.0) -> int:
        return self.popen.wait(timeout)

    def kill(self) -> None:
        """The process and what it has started."""
        if self.popen.poll() is None:
            self.popen.terminate()
            try:
                self.popen.wait(10)
            except subprocess.TimeoutExpired:
                self.popen.kill()
                self.popen.wait(10)


class Spawner:
    """`spawn("agent", "--app", APP)`: starts processes, and ends them when the test is over."""

    def __init__(self, folder: Path, url: str, namespace: str) -> None:
        self._folder = folder
        self._running: list[Process] = []
        own = {name: value for name, value in os.environ.items() if not name.startswith(("STREAMMESH_", "REDIS_"))}
        path = os.pathsep.join(filter(None, [str(ROOT), own.get("PYTHONPATH", "")]))
        self.environment = own | {
            "STREAMMESH_REDIS_URL": url, "STREAMMESH_NAMESPACE": namespace, "PYTHONPATH": path,
        }  # fmt: skip

    def __call__(self, *arguments: str, cwd: Path = ROOT, **environment: str) -> Process:
        process = Process(self._folder, list(arguments), self.environment | environment, cwd)
        self._running.append(process)
        return process

    def close(self) -> None:
        for process in self._running:
            process.kill()


@pytest.fixture(autouse=True)
def _own_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [name for name in os.environ if name.startswith(("STREAMMESH_", "REDIS_")) or name == "NO_COLOR"]:
        monkeypatch.delenv(name)


@pytest.fixture
def cli(url: str, namespace: str) -> Cli:
    """A mesh of its own for each test, without an agent."""
    return Cli(url, namespace)


@pytest.fixture
def spawn(tmp_path: Path, url: str, namespace: str) -> Iterator[Spawner]:
    spawner = Spawner(tmp_path, url, namespace)
    try:
        yield spawner
    finally:
        spawner.close()


@pytest.fixture(scope="module")
def shop(server: Server, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cli]:
    """A mesh with one agent of `tests.cli.shop`, for all tests of a module."""
    namespace = f"t-{secrets.token_hex(5)}"
    spawner = Spawner(tmp_path_factory.mktemp("shop"), server.url, namespace)
    agent = spawner("agent", "--app", APP)
    try:
        agent.says(" ready ")
        cli = Cli(server.url, namespace)
        # It joins as `starting`; its first beat says that it is ready.
        eventually_sync(lambda: cli("agents", "ls", "--json").json["state"] == "ready")
        yield cli
    finally:
        spawner.close()


@pytest.fixture
def redis_server_that_evicts(tmp_path: Path) -> Iterator[str]:
    server = Server("valkey", tmp_path, {"maxmemory-policy": "allkeys-lru", "maxmemory": "64mb", "appendonly": "no"})
    server.start()
    try:
        yield server.url
    finally:
        server.stop()
