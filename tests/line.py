"""A line to a server that a test can cut at a chosen word: after the request got through, or in the middle of it.

    async with Line(port) as line:
        line.lose_reply_to(b"XADD")           # the server does it, and its answer never arrives
        line.tear(b"XADD")                    # the server gets half of the request
        line.hold(); line.release()           # nothing passes in between, and nothing is closed: a black hole
    line.redirect(port)                   # whoever connects from now on is connected to another server

The chaos run has a proxy of its own, which chooses by chance.
"""

from __future__ import annotations

import asyncio
import contextlib
from types import TracebackType
from typing import Self

_CHUNK = 1 << 20


class Line:
    """Listens on a loopback port and passes everything on to 127.0.0.1:``upstream``; ``cuts`` counts what it did."""

    def __init__(self, upstream: int) -> None:
        self._upstream = upstream
        self._lose: list[bytes] = []
        self._tear: list[bytes] = []
        self._open = asyncio.Event()
        self._open.set()
        self._work: set[asyncio.Task[None]] = set()
        self._server: asyncio.Server | None = None
        self.cuts = 0

    @property
    def url(self) -> str:
        assert self._server
        return f"redis://127.0.0.1:{self._server.sockets[0].getsockname()[1]}/0"

    def lose_reply_to(self, word: bytes | str, times: int = 1) -> None:
        """The answers to the next ``times`` requests that contain ``word`` are lost, with their connections."""
        self._lose += [word if isinstance(word, bytes) else word.encode()] * times

    def tear(self, word: bytes | str) -> None:
        """The next request that contains ``word`` arrives by half, then its connection ends."""
        self._tear.append(word if isinstance(word, bytes) else word.encode())

    def hold(self) -> None:
        self._open.clear()

    def release(self) -> None:
        self._open.set()

    def redirect(self, upstream: int) -> None:
        self._upstream = upstream

    async def __aenter__(self) -> Self:
        self._server = await asyncio.start_server(self._connected, "127.0.0.1", 0)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        assert self._server
        self._server.close()
        for work in self._work:
            work.cancel()
        await asyncio.gather(*self._work, return_exceptions=True)

    async def _connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            above, below = await asyncio.open_connection("127.0.0.1", self._upstream)
        except OSError:
            writer.transport.abort()
            return
        lost = asyncio.Event()
        work = asyncio.gather(self._requests(reader, below, lost), self._replies(above, writer, lost))
        task = asyncio.create_task(self._until(work, writer, below))
        self._work.add(task)
        task.add_done_callback(self._work.discard)

    async def _until(self, work: asyncio.Future[tuple[None, None]], *sides: asyncio.StreamWriter) -> None:
        try:
            with contextlib.suppress(OSError, EOFError):
                await work
        finally:
            for side in sides:
                side.transport.abort()

    async def _requests(self, reader: asyncio.StreamReader, below: asyncio.StreamWriter, lost: asyncio.Event) -> None:
        while chunk := await reader.read(_CHUNK):
            await self._open.wait()
            torn = next((word for word in self._tear if word in chunk), None)
            if torn is not None:
                self._tear.remove(torn)
                self.cuts += 1
                below.write(chunk[: len(chunk) // 2])
                await below.drain()
                below.close()
                raise EOFError
            gone = next((word for word in self._lose if word in chunk), None)
            if gone is not None:
                self._lose.remove(gone)
                lost.set()
            below.write(chunk)
            await below.drain()
        raise EOFError

    async def _replies(self, above: asyncio.StreamReader, writer: asyncio.StreamWriter, lost: asyncio.Event) -> None:
        while chunk := await above.read(_CHUNK):
            await self._open.wait()
            if lost.is_set():
                self.cuts += 1
                raise EOFError
            writer.write(chunk)
            await writer.drain()
        raise EOFError
