"""A parent that keeps agent processes running: it passes signals on, restarts what crashes, and reloads on edits.

Each child is a `streammesh agent` of its own in a process group of its own, so that Ctrl-C reaches it once, through the
parent. A child's stdin is a pipe from the parent: when the parent is gone, however it went, the children drain.
"""

from __future__ import annotations

import asyncio
import json
import logging
import os
import signal
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

from streammesh.cli.endings import Ended
from streammesh.cli.session import Session

__all__ = ["Child", "Supervisor", "child_of"]

#: Seconds before a crashed child is started again; doubles up to the last, begins anew after a quiet minute.
BACKOFF = (0.5, 30.0)
QUIET = 60.0
#: Exit codes that another start would not change.
HOPELESS = (2, 3)

_log = logging.getLogger("streammesh.agent")


@dataclass(slots=True, eq=False)
class Child:
    """One process to keep running: how it is started, and how it has fared."""

    command: list[str]
    environment: dict[str, str]
    label: str
    process: asyncio.subprocess.Process | None = None
    crashes: int = 0
    reloading: bool = field(default=False)


def child_of(session: Session, app: str, url: str, namespace: str, options: dict[str, Any]) -> Child:
    """A child that serves ``app``. The URL goes by the environment: a command line is everybody's to read."""
    command = [sys.executable, "-m", "streammesh", "-N", namespace, "agent", "--app", app, "--supervised"]
    for name in ("name", "slots", "lease", "grace"):
        if options.get(name) is not None:
            command += [f"--{name}", f"{options[name]:.3f}s" if name in ("lease", "grace") else str(options[name])]
    command += [f"--{name}" for name in ("burst", "unsafe") if options.get(name)]
    command += ["-q"] if session.quiet else ["-" + "v" * session.verbose] if session.verbose else []
    package = str(Path(__file__).resolve().parents[2])
    path = os.pathsep.join(filter(None, [package, os.environ.get("PYTHONPATH", "")]))
    own = {name: value for name, value in os.environ.items() if not name.startswith("STREAMMESH_AGENT_")}
    return Child(command, own | {"STREAMMESH_REDIS_URL": url, "PYTHONPATH": path}, app)


class Supervisor:
    """Runs children until they have ended by themselves, or until a signal: then they drain, and a second one stops hard."""

    def __init__(
        self, children: Sequence[Child], *, grace: float, ready_file: Path | None = None, reload: bool = False
    ) -> None:
        self._children = list(children)
        self._grace = grace
        self._ready_file = ready_file
        self._reload = reload
        self._signals: list[int] = []
        self._stopping = asyncio.Event()
        self._hopeless = 0
        if ready_file is not None:
            for number, child in enumerate(self._children):
                child.command += ["--ready-file", f"{ready_file}.{number}"]

    def run(self) -> int:
        """Returns the exit code: 0 when all ended by themselves, 130 or 143 after a signal, else that of a child."""
        return asyncio.run(self.supervise())

    async def supervise(self) -> int:
        watch = _watcher() if self._reload else None
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self._on_signal, number)
        others = [asyncio.create_task(self._tell_ready())] if self._ready_file else []
        if watch is not None:
            others.append(asyncio.create_task(self._watch(watch)))
        try:
            codes = await asyncio.gather(*(self._keep(child) for child in self._children))
        finally:
            for other in others:
                other.cancel()
            await asyncio.gather(*others, return_exceptions=True)
            if self._ready_file:
                self._ready_file.unlink(missing_ok=True)
        if self._signals:
            return 128 + self._signals[0]
        return self._hopeless or max(codes, default=0)

    def _on_signal(self, number: int) -> None:
        self._signals.append(number)
        self._stopping.set()
        for child in self._children:
            # The second signal is SIGTERM again: an agent stops hard when it gets another one while it drains.
            _send(child, signal.SIGTERM)

    async def _keep(self, child: Child) -> int:
        while True:
            began = time.monotonic()
            # A session of its own: the terminal's Ctrl-C is for the parent, which passes it on once.
            child.process = await asyncio.create_subprocess_exec(
                *child.command, stdin=asyncio.subprocess.PIPE, env=child.environment, start_new_session=True
            )
            if self._stopping.is_set():
                _send(child, signal.SIGTERM)
            code = await child.process.wait()
            if self._stopping.is_set():
                return 0
            if child.reloading:
                child.reloading = False
                continue
            if code == 0:
                return 0
            if code in HOPELESS:
                self._give_up(code)
                return code
            child.crashes = 1 if time.monotonic() - began > QUIET else child.crashes + 1
            pause = min(BACKOFF[1], BACKOFF[0] * 2 ** (child.crashes - 1))
            how = f"was killed by signal {-code}" if code < 0 else f"ended with code {code}"
            _log.warning("%s pid=%d %s; started again in %.1f s", child.label, child.process.pid, how, pause)
            try:
                async with asyncio.timeout(pause):
                    await self._stopping.wait()
                return 0
            except TimeoutError:
                continue

    def _give_up(self, code: int) -> None:
        self._hopeless = self._hopeless or code
        self._stopping.set()
        for child in self._children:
            _send(child, signal.SIGTERM)

    async def _tell_ready(self) -> None:
        """Ready when every child is: the files of the children are judged, and one is written for all."""
        from streammesh.health import judge

        assert self._ready_file is not None
        while True:
            reasons = [judge(f"{self._ready_file}.{number}") for number in range(len(self._children))]
            if any(reasons) or self._stopping.is_set():
                self._ready_file.unlink(missing_ok=True)
            else:
                fresh = self._ready_file.with_suffix(f".{os.getpid()}")
                fresh.write_text(json.dumps({"state": "ready", "at": time.time()}) + "\n", encoding="utf-8")
                fresh.replace(self._ready_file)
            await asyncio.sleep(0.5)

    async def _watch(self, watch: Any) -> None:
        async for changes in watch(stop_event=self._stopping):
            _log.info(
                "%s changed: draining and starting anew", ", ".join(sorted({Path(p).name for _, p in changes})[:3])
            )
            for child in self._children:
                child.reloading = True
                _send(child, signal.SIGTERM)


def _watcher() -> Any:
    """Tells of changed Python files under the current directory. Raises Ended without watchfiles."""
    try:
        from watchfiles import PythonFilter, awatch
    except ImportError:
        raise Ended("--reload needs watchfiles: pip install 'streammesh[reload]'", 2) from None
    return partial(awatch, os.getcwd(), watch_filter=PythonFilter())


def _send(child: Child, number: signal.Signals) -> None:
    if child.process is not None and child.process.returncode is None:
        child.process.send_signal(number)
