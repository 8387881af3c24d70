"""The stage of a chaos run: one server, agents behind a proxy each, and the hand that does each fault.

Only processes that were started here are ever signalled, by their own handle.
"""

from __future__ import annotations

import asyncio
import os
import random
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Iterator
from contextlib import AsyncExitStack, contextmanager
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from streammesh import Mesh, MeshError
from streammesh.errors import StoreUnavailable
from tests.chaos.faults import Fault
from tests.chaos.history import EVERYBODY, Recorder
from tests.chaos.proxy import Proxy
from tests.chaos.victim import CAPABILITIES
from tests.servers import Server

__all__ = ["Seat", "Stage"]

ROOT = Path(__file__).resolve().parents[2]
NAMESPACE = "chaos"
#: How long, in seconds, an agent may take from SIGTERM to its end while the server is well.
PATIENCE_WITH_DRAIN = 20.0


class Seat:
    """A place for one agent: processes come and go, the proxy stays."""

    def __init__(self, stage: Stage, number: int) -> None:
        self.stage = stage
        self.number = number
        self.proxy = Proxy(stage.server.port, self._cut)
        self.process: subprocess.Popen[bytes] | None = None
        self.started = 0

    def _cut(self) -> None:
        now = time.monotonic()
        if self.process:
            self.stage.recorder.fault("cut", self.name(self.process), now, now)

    def name(self, process: subprocess.Popen[bytes]) -> str:
        """What the process calls itself in its history."""
        return f"a{self.number}-{process.pid}"

    def start(self) -> None:
        stage = self.stage
        self.started += 1
        command = [
            sys.executable, "-m", stage.victim, "--url", self.proxy.url, "--namespace", NAMESPACE,
            "--name", f"a{self.number}", "--folder", str(stage.folder), "--lease", str(stage.lease),
            "--slots", str(stage.slots), "--grace", str(stage.grace), "--mutant", stage.mutant,
        ]  # fmt: skip
        with (stage.folder / f"agent-{self.number}.{self.started}.log").open("wb") as log:
            self.process = subprocess.Popen(
                command, cwd=ROOT, stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True
            )

    def check(self) -> None:
        """Raise RuntimeError, with its last words, if the process is not there."""
        if self.process is None or self.process.poll() is not None:
            log = self.stage.folder / f"agent-{self.number}.{self.started}.log"
            raise RuntimeError(f"the agent on seat {self.number} has ended:\n{log.read_text()[-2000:]}")

    def kill(self) -> None:
        if self.process:
            begun = time.monotonic()
            self.process.kill()
            self.process.wait()
            self.stage.recorder.fault("kill", self.name(self.process), begun)
            self.process = None


class Stage:
    """Server, proxies and agents; `suffer` does one fault, `calm` ends all that is still going on."""

    def __init__(
        self, folder: Path, *, seats: int, slots: int, lease: float, shards: int = 1, seed: int = 0, flavour: str = "valkey",
        fsync: str = "everysec", mutant: str = "", victim: str = "tests.chaos.victim",
    ) -> None:  # fmt: skip
        self.folder = folder
        self.lease = lease
        self.shards = shards
        self.slots = slots
        self.grace = 2 * lease
        self.mutant = mutant
        #: The module that is the agent.
        self.victim = victim
        (folder / "server").mkdir()
        self.server = Server(flavour, folder / "server", {"appendfsync": fsync})
        self.seats: list[Seat] = []
        #: What was done, by kind.
        self.done: Counter[str] = Counter()
        #: Agents that ended when nobody told them to, or did not end when told.
        self.surprises: list[str] = []
        self._count = seats
        self._dice = random.Random(f"stage {seed}")
        self._serving = asyncio.Lock()
        self._leaving: set[asyncio.Task[None]] = set()
        self._stack = AsyncExitStack()
        self.recorder = Recorder(folder, "driver")

    async def __aenter__(self) -> Self:
        await asyncio.to_thread(self.server.start)
        self._stack.callback(self.server.stop)
        try:
            self.producer = await self._stack.enter_async_context(Proxy(self.server.port))
            # The first who opens a mesh creates it: with the shards that are wanted.
            self.inspector = await self._stack.enter_async_context(
                Mesh.connect(self.server.url, namespace=NAMESPACE, shards=self.shards, patience=30.0, name="inspector")
            )
            for _ in range(self._count):
                await self.add()
        except BaseException:
            await self.__aexit__(None, None, None)
            raise
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for leaving in self._leaving:
            leaving.cancel()
        await asyncio.gather(*self._leaving, return_exceptions=True)
        await self._stack.aclose()
        self.recorder.close()

    async def add(self) -> Seat:
        """Another agent."""
        seat = Seat(self, len(self.seats))
        await self._stack.enter_async_context(seat.proxy)
        self.seats.append(seat)
        seat.start()
        self._stack.callback(seat.kill)
        return seat

    # -- faults

    async def suffer(self, fault: Fault) -> None:
        """Do one fault and return when it is over."""
        await getattr(self, f"_{fault.kind}")(self.seats[fault.seat], fault.size)
        self.done[fault.kind] += 1

    async def _agent_kill(self, seat: Seat, size: float) -> None:
        if seat.process is None:
            # Killed a moment ago, and not there again yet: another one has to do.
            seat = next((other for other in self.seats if other.process), seat)
        self._look_after(seat)
        seat.kill()
        await asyncio.sleep(size / 2)
        if seat.process is None:
            seat.start()

    async def _agent_freeze(self, seat: Seat, size: float) -> None:
        process = seat.process
        if process:
            # The process that was frozen is woken, whoever sits there by then; one that has ended is not signalled.
            with self._noting("pause", seat.name(process)):
                process.send_signal(signal.SIGSTOP)
                await asyncio.sleep(self.lease * (0.5 + 2.5 * size))
                process.send_signal(signal.SIGCONT)

    async def _agent_drain(self, seat: Seat, size: float) -> None:
        self._look_after(seat)
        process, seat.process = seat.process, None
        if process:
            # A frozen one could not obey.
            process.send_signal(signal.SIGCONT)
            process.send_signal(signal.SIGTERM)
            leaving = asyncio.create_task(self._goodbye(seat, process))
            self._leaving.add(leaving)
            leaving.add_done_callback(self._leaving.discard)
        seat.start()

    async def _goodbye(self, seat: Seat, process: subprocess.Popen[bytes]) -> None:
        """Wait for an agent that was told to go; one that does not is told so by force, and noted."""
        end = time.monotonic() + PATIENCE_WITH_DRAIN
        try:
            while process.poll() is None and time.monotonic() < end:  # noqa: ASYNC110 - nothing tells of its end
                await asyncio.sleep(0.05)
        finally:
            if process.poll() is None:
                self.surprises.append(f"agent on seat {seat.number}, pid {process.pid}, did not end after SIGTERM")
                process.kill()
                process.wait()
        self.recorder.fault("kill", seat.name(process), time.monotonic())
        # The handler of SIGTERM comes with the loop: before that, the signal's own effect is the right one.
        if process.returncode not in (128 + signal.SIGTERM, -signal.SIGTERM, -signal.SIGKILL):
            self.surprises.append(f"agent on seat {seat.number} left with code {process.returncode}")

    async def _server_kill(self, seat: Seat, size: float) -> None:
        async with self._serving:
            with self._noting("server_kill", EVERYBODY):
                self.server.kill()
                await asyncio.sleep(size / 2)
                await asyncio.to_thread(self.server.start)

    async def _server_freeze(self, seat: Seat, size: float) -> None:
        async with self._serving:
            with self._noting("server_pause", EVERYBODY):
                os.kill(self.server.pid, signal.SIGSTOP)
                try:
                    await asyncio.sleep(self.lease * (0.5 + 2.5 * size))
                finally:
                    os.kill(self.server.pid, signal.SIGCONT)

    async def _server_full(self, seat: Seat, size: float) -> None:
        async with self._serving:
            with self._noting("server_full", EVERYBODY):
                await self._surely("CONFIG", "SET", "maxmemory", "1")
                try:
                    await asyncio.sleep(0.3 + 1.2 * size)
                finally:
                    await self._surely("CONFIG", "SET", "maxmemory", "0")

    async def _capability_pause(self, seat: Seat, size: float) -> None:
        capability = self._dice.choice(CAPABILITIES)
        registry = self.inspector.registry
        with self._noting("capability_pause", EVERYBODY):
            await self._insist(lambda: registry.pause(capability, by="chaos"))
            try:
                await asyncio.sleep(0.3 + 1.2 * size)
            finally:
                await self._insist(lambda: registry.resume(capability, by="chaos"))

    async def _insist(self, act: Callable[[], Awaitable[object]]) -> None:
        """An operator's act, repeated while the server is away or full."""
        async with asyncio.timeout(60):
            while True:
                try:
                    await act()
                except StoreUnavailable:
                    await asyncio.sleep(0.05)
                else:
                    return

    async def _client_kill(self, seat: Seat, size: float) -> None:
        with self._noting("cut", EVERYBODY):
            if size < 0.5:
                await self._ask("CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes")
                return
            said: str = await self._ask("CLIENT", "LIST") or ""
            clients = [word.removeprefix("id=") for word in said.split() if word.startswith("id=")]
            for client in self._dice.sample(clients, len(clients) // 2):
                await self._ask("CLIENT", "KILL", "ID", client)

    async def _script_flush(self, seat: Seat, size: float) -> None:
        with self._noting("script_flush", EVERYBODY):
            await self._ask("SCRIPT", "FLUSH")

    async def _surely(self, *command: str) -> None:
        async with asyncio.timeout(30):
            while await self._ask(*command) != "OK":  # noqa: ASYNC110 - asked until it is done
                await asyncio.sleep(0.05)

    async def _ask(self, *command: str) -> Any:
        try:
            return await self.inspector.store.command(*command)
        except MeshError:
            # Our own connection was among those killed, or a client was gone by then.
            return None

    async def _cut_replies(self, seat: Seat, size: float) -> None:
        for proxy in (seat.proxy, self.producer):
            proxy.cut_replies(1 + int(4 * size))

    async def _tear_requests(self, seat: Seat, size: float) -> None:
        for proxy in (seat.proxy, self.producer):
            proxy.tear_requests(1 + int(4 * size))

    async def _swallow(self, seat: Seat, size: float) -> None:
        cut = size > 0.4
        if size > 0.85 or not seat.process:
            await self.producer.swallow(0.5 + 2.5 * size, cut=cut)
            return
        with self._noting("cut", seat.name(seat.process)):
            await seat.proxy.swallow(0.5 + 2.5 * size, cut=cut)
        if seat.process:
            # It may be another process by now, and that one was cut off as well.
            self.recorder.fault("cut", seat.name(seat.process), time.monotonic())

    @contextmanager
    def _noting(self, kind: str, target: str) -> Iterator[None]:
        """Write a fault into the history, with its begin and end."""
        begun = time.monotonic()
        try:
            yield
        finally:
            self.recorder.fault(kind, target, begun, time.monotonic())

    # -- the end

    def _look_after(self, seat: Seat) -> None:
        if seat.process and seat.process.poll() is not None:
            self.surprises.append(f"agent on seat {seat.number} ended by itself with code {seat.process.returncode}")

    async def calm(self) -> None:
        """End what is still going on: everybody runs, everything passes, whoever was told to go has gone."""
        for proxy in (self.producer, *(seat.proxy for seat in self.seats)):
            proxy.behave()
        for seat in self.seats:
            self._look_after(seat)
            if seat.process and seat.process.poll() is None:
                seat.process.send_signal(signal.SIGCONT)
            else:
                seat.start()

    async def gone(self) -> None:
        """Wait until all who were told to go have gone."""
        while self._leaving:
            await asyncio.wait(set(self._leaving))

    async def dismiss(self) -> None:
        """Drain every agent and wait for it."""
        for seat in self.seats:
            self._look_after(seat)
            process, seat.process = seat.process, None
            if process:
                process.send_signal(signal.SIGTERM)
                leaving = asyncio.create_task(self._goodbye(seat, process))
                self._leaving.add(leaving)
                leaving.add_done_callback(self._leaving.discard)
        await self.gone()

    @property
    def started(self) -> int:
        """Agent processes that there ever were."""
        return sum(seat.started for seat in self.seats)
