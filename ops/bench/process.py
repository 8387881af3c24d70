"""The processes of a case: one server, and children in their roles. Whatever is started here is ended here, by its pid."""

from __future__ import annotations

import json
import os
import select
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import redis

from streammesh.embedded import find_server

__all__ = ["Child", "Server", "quiet", "until"]

ROOT = Path(__file__).resolve().parents[2]
_TICKS = os.sysconf("SC_CLK_TCK")


def until(condition: Callable[[], Any], timeout: float, what: str, pause: float = 0.02) -> Any:
    """The condition's first true value. Raises TimeoutError, naming ``what``."""
    end = time.monotonic() + timeout
    while True:
        value = condition()
        if value:
            return value
        if time.monotonic() > end:
            raise TimeoutError(f"not within {timeout:g} s: {what}")
        time.sleep(pause)


def quiet(patience: float) -> None:
    """Wait until others leave the machine alone, for ``patience`` seconds at most: what they use is missing from a figure."""

    def busy() -> int:
        user, nice, system = Path("/proc/stat").read_text().split(maxsplit=4)[1:4]
        return int(user) + int(nice) + int(system)

    end = time.monotonic() + patience
    while time.monotonic() < end:
        before, began = busy(), time.monotonic()
        time.sleep(0.4)
        if (busy() - before) / _TICKS < 0.2 * (time.monotonic() - began):
            return


class Server:
    """A server with nothing in it, on a loopback port; its file is synced every second and never rewritten."""

    def __init__(self) -> None:
        self.folder = tempfile.mkdtemp(prefix="streammesh-bench-")
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self.port = int(probe.getsockname()[1])
        self.url = f"redis://127.0.0.1:{self.port}/0"
        self._children: list[Child] = []
        self.process = subprocess.Popen(
            [
                find_server(), "--port", str(self.port), "--bind", "127.0.0.1", "--dir", self.folder, "--save", "",
                "--appendonly", "yes", "--appendfsync", "everysec", "--auto-aof-rewrite-percentage", "0",
                "--maxmemory-policy", "noeviction",
            ],
            stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
        )  # fmt: skip
        self.client = redis.Redis(port=self.port, decode_responses=True)

    def __enter__(self) -> Self:
        until(self._answers, 20.0, "the server answers")
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for child in self._children:
            child.kill()
        self.client.close()
        self.process.kill()
        self.process.wait()
        shutil.rmtree(self.folder, ignore_errors=True)

    def _answers(self) -> bool:
        try:
            return bool(self.client.ping())
        except redis.ConnectionError:
            if self.process.poll() is not None:
                raise RuntimeError(f"the server ended with code {self.process.returncode}") from None
            return False

    def child(self, role: str, **options: Any) -> Child:
        """A process in that role, which has connected; `Child.go` lets it begin."""
        child = Child(role, self.url, options)
        self._children.append(child)
        return child

    # -- what the server says of itself

    @property
    def cpu(self) -> float:
        """CPU seconds used so far, in all its threads."""
        info: Any = self.client.info("cpu")
        return float(info["used_cpu_user"]) + float(info["used_cpu_sys"])

    @property
    def memory(self) -> int:
        """Bytes allocated."""
        info: Any = self.client.info("memory")
        return int(info["used_memory"])

    @property
    def appended(self) -> int:
        """Bytes in the append-only file."""
        info: Any = self.client.info("persistence")
        return int(info["aof_current_size"])

    @property
    def scripts(self) -> int:
        """Scripts run so far: under load, these are an agent's round trips (what a script calls inside is none)."""
        info: Any = self.client.info("commandstats")
        return sum(int(info.get(f"cmdstat_{name}", {"calls": 0})["calls"]) for name in ("eval", "evalsha"))

    def overheard(self, seconds: float) -> list[str]:
        """The commands that clients send in so many seconds, as MONITOR shows them, without those that scripts call."""
        with socket.create_connection(("127.0.0.1", self.port)) as link:
            link.sendall(b"MONITOR\r\n")
            heard, end = b"", time.monotonic() + seconds
            while (left := end - time.monotonic()) > 0:
                if select.select([link], [], [], left)[0]:
                    heard += link.recv(65536)
        lines = heard.decode(errors="replace").splitlines()[1:]
        return [line for line in lines if " lua] " not in line]


class Child:
    """A process of ours. It says lines of JSON, beginning with ``"ready"``; lines said to it are words."""

    def __init__(self, role: str, url: str, options: dict[str, Any]) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-m", "ops.bench.child", role, url, json.dumps(options)],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, cwd=ROOT, bufsize=0,
        )  # fmt: skip
        self.pid = self.process.pid
        self._rest = b""

    def ready(self) -> Self:
        """Wait until it has connected."""
        said = self.hear(60.0)
        if said != "ready":
            raise RuntimeError(f"a child said {said!r} before it was ready")
        return self

    def say(self, word: str) -> None:
        assert self.process.stdin
        self.process.stdin.write(word.encode() + b"\n")

    def hear(self, timeout: float) -> Any:
        """The next thing it says. Raises TimeoutError, or RuntimeError when it has ended instead."""
        assert self.process.stdout
        end = time.monotonic() + timeout
        while b"\n" not in self._rest:
            left = end - time.monotonic()
            if left <= 0 or not select.select([self.process.stdout], [], [], left)[0]:
                raise TimeoutError(f"child {self.pid} said nothing within {timeout:g} s")
            more = os.read(self.process.stdout.fileno(), 65536)
            if not more:
                raise RuntimeError(f"child {self.pid} ended with code {self.process.wait()}")
            self._rest += more
        line, _, self._rest = self._rest.partition(b"\n")
        return json.loads(line)

    def kill(self) -> None:
        """SIGKILL; harmless when it has ended."""
        self.process.kill()
        self.process.wait()
        for pipe in (self.process.stdin, self.process.stdout):
            if pipe:
                pipe.close()

    @property
    def cpu(self) -> float:
        """CPU seconds used so far, in all its threads."""
        fields = Path(f"/proc/{self.pid}/stat").read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / _TICKS

    @property
    def resident(self) -> float:
        """MB resident."""
        for line in Path(f"/proc/{self.pid}/status").read_text().splitlines():
            if line.startswith("VmRSS:"):
                return int(line.split()[1]) / 1024
        raise RuntimeError(f"child {self.pid} has no resident size")
