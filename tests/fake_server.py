"""A server that says what a test wants: enough of the protocol to be mistaken for a Redis.

    async with FakeServer({"INFO": info(redis_version="6.2.14")}) as server:
        Mesh.connect(server.url)

Answers are bytes of the protocol by command, or functions of the whole command; whatever has none is answered with OK.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from types import TracebackType
from typing import Self

Answer = bytes | Callable[[list[bytes]], bytes]

OK = b"+OK\r\n"


def bulk(text: str) -> bytes:
    return b"$%d\r\n%s\r\n" % (len(text.encode()), text.encode())


def info(**fields: str) -> bytes:
    """What INFO answers on a good server, with these differences."""
    good = {"redis_version": "7.4.0", "role": "master", "maxmemory_policy": "noeviction", "loading": "0"}
    return bulk("# Server\r\n" + "\r\n".join(f"{name}:{value}" for name, value in {**good, **fields}.items()))


class FakeServer:
    def __init__(self, answers: Mapping[str, Answer], raw: bytes | None = None) -> None:
        self._answers = dict(answers)
        self._raw = raw
        self.asked: list[list[bytes]] = []
        self._server: asyncio.Server | None = None
        self._writers: list[asyncio.StreamWriter] = []

    @property
    def url(self) -> str:
        assert self._server
        return f"redis://127.0.0.1:{self._server.sockets[0].getsockname()[1]}/0"

    async def __aenter__(self) -> Self:
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        assert self._server
        self._server.close()
        for writer in self._writers:
            writer.transport.abort()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._writers.append(writer)
        try:
            while head := await reader.readline():
                if self._raw is not None:
                    writer.write(self._raw)
                    writer.close()
                    return
                command = []
                for _ in range(int(head[1:])):
                    size = int((await reader.readline())[1:])
                    command.append((await reader.readexactly(size + 2))[:-2])
                self.asked.append(command)
                answer = self._answers.get(command[0].decode().upper(), OK)
                writer.write(answer if isinstance(answer, bytes) else answer(command))
        except (asyncio.IncompleteReadError, ConnectionError):
            return
