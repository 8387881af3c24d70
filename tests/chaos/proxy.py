"""A TCP proxy that a test can make treacherous: it cuts requests or replies in the middle, or swallows everything.

    async with Proxy(port) as proxy:            # proxy.port leads to 127.0.0.1:port
        proxy.cut_replies(3)                    # the next three answers never arrive, though the server did the work
        await proxy.swallow(1.5)                # nothing passes for so long, then connections are cut or go on

A cut reply is what a client cannot tell from a request that never arrived; a torn request is half of one, then the end.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable
from types import TracebackType
from typing import Self

__all__ = ["Proxy"]

_CHUNK = 65536


class Proxy:
    """Listens on a loopback port of its own and passes everything on to ``upstream`` until told otherwise.

    ``on_cut`` is called whenever an answer or a request is cut.
    """

    def __init__(self, upstream: int, on_cut: Callable[[], None] = lambda: None) -> None:
        self.upstream = upstream
        self._on_cut = on_cut
        self.port = 0
        #: How often each trick was really played.
        self.cut_count = {"reply": 0, "request": 0}
        self._cuts = {"reply": 0, "request": 0}
        self._open = asyncio.Event()
        self._open.set()
        self._pairs: set[tuple[asyncio.StreamWriter, asyncio.StreamWriter]] = set()
        self._work: set[asyncio.Task[None]] = set()
        self._server: asyncio.Server | None = None

    async def __aenter__(self) -> Self:
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", self.port)
        self.port = self._server.sockets[0].getsockname()[1]
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        assert self._server
        self._server.close()
        self.cut_all()
        for work in self._work:
            work.cancel()
        await asyncio.gather(*self._work, return_exceptions=True)

    @property
    def url(self) -> str:
        return f"redis://127.0.0.1:{self.port}/0"

    def cut_replies(self, count: int) -> None:
        """Throw away the next `count` pieces of answer, each with its connection."""
        self._cuts["reply"] += count

    def tear_requests(self, count: int) -> None:
        """Let only half of the next `count` pieces of request through, then end their connections."""
        self._cuts["request"] += count

    def cut_all(self) -> None:
        """End every connection now."""
        for pair in list(self._pairs):
            for side in pair:
                side.transport.abort()

    async def swallow(self, seconds: float, *, cut: bool = True) -> None:
        """Let nothing through for so long; then connections that waited are cut, or (``cut=False``) go on as if nothing was."""
        self._open.clear()
        try:
            await asyncio.sleep(seconds)
        finally:
            if cut:
                self.cut_all()
            self._open.set()

    def behave(self) -> None:
        """From now on pass everything on."""
        self._cuts = {"reply": 0, "request": 0}
        self._open.set()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        work = asyncio.current_task()
        assert work
        self._work.add(work)
        try:
            await self._open.wait()
            there, back = await asyncio.open_connection("127.0.0.1", self.upstream)
            pair = (writer, back)
            self._pairs.add(pair)
            try:
                async with asyncio.TaskGroup() as both:
                    both.create_task(self._pass_on("request", reader, back, pair))
                    both.create_task(self._pass_on("reply", there, writer, pair))
            finally:
                self._pairs.discard(pair)
                back.transport.abort()
        except (OSError, asyncio.CancelledError):
            # Nobody listens upstream: the client sees its connection end, as it would at the server itself. Or the proxy is
            # being closed; a connection's own task is awaited by nobody who could be told that it was cancelled.
            pass
        finally:
            writer.transport.abort()
            self._work.discard(work)

    async def _pass_on(
        self,
        direction: str,
        source: asyncio.StreamReader,
        target: asyncio.StreamWriter,
        pair: tuple[asyncio.StreamWriter, asyncio.StreamWriter],
    ) -> None:
        # Any end of either side is the end of both, as it is for a client of Redis.
        with contextlib.suppress(OSError):
            while chunk := await source.read(_CHUNK):
                await self._open.wait()
                if self._cuts[direction] > 0:
                    self._cuts[direction] -= 1
                    self.cut_count[direction] += 1
                    self._on_cut()
                    if direction == "request":
                        target.write(chunk[: len(chunk) // 2])
                        await target.drain()
                    break
                target.write(chunk)
                await target.drain()
        if direction == "request":
            # Closed, not aborted: half a request has to arrive.
            target.close()
            pair[0].transport.abort()
        else:
            for side in pair:
                side.transport.abort()
