"""What a client of a mesh is made of: how it connects, what it refuses, and every room that is open then.

`Mesh` adds the verbs.
"""

from __future__ import annotations

import asyncio
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self

from streammesh.asking import Asking
from streammesh.auctions import Auctions
from streammesh.boundaries import Boundaries
from streammesh.dead import DeadLetters
from streammesh.edges import Edges
from streammesh.embedded import Embedded
from streammesh.errors import ConfigError, MeshMismatch
from streammesh.journal import Journal
from streammesh.keys import Keys, check_name
from streammesh.messages import Messages
from streammesh.peers import Roster
from streammesh.registry import Registry
from streammesh.replies import Replies
from streammesh.runlist import RunList
from streammesh.schedules import Schedules
from streammesh.settings import from_env
from streammesh.status import Status
from streammesh.store import Store
from streammesh.tasks import Tasks
from streammesh.timers import Timers
from streammesh.topics import Topics
from streammesh.votes import Votes

__all__ = ["LAYOUT", "Rooms"]

#: What `Rooms.open` makes.
_ROOMS = frozenset(
    (
        "keys", "replies", "tasks", "timers", "dead", "registry", "roster", "messages", "auctions", "votes", "asking", "status", "journal",
        "runlist", "schedules", "topics",
    )
)  # fmt: skip

#: The version of the key layout that this code speaks.
LAYOUT = 1


class Rooms:
    """A client of one mesh, closed until `open`: its connections, and the rooms that share them."""

    def __init__(
        self, url: str, namespace: str, *, shards: int | None, patience: float | None, name: str, unsafe: bool
    ) -> None:
        self.namespace = check_name(namespace, "namespace")
        self._embedded: Embedded | None = None
        if url.startswith("embedded://"):
            self._embedded = Embedded.at(url)
            url = self._embedded.url
        if shards is not None and not 1 <= shards <= 1024:
            raise ConfigError(f"shards={shards} is not usable: expected 1 to 1024")
        self._shards = shards
        self._unsafe = unsafe
        self.url = url
        self.store = Store(url, name=name, patience=patience)

    @classmethod
    def connect(
        cls,
        url: str | None = None,
        *,
        namespace: str | None = None,
        shards: int | None = None,
        patience: float | None = 10.0,
        name: str = "streammesh",
        unsafe: bool = False,
    ) -> Self:
        """A client for the mesh ``namespace`` at ``url``; nothing is sent before ``async with`` or `open`.

        Without ``url``: ``$STREAMMESH_REDIS_URL``, ``$REDIS_URL``, else an embedded server in ``.streammesh``. ``shards`` is
        fixed when the mesh is created (1 unless given). ``patience`` is how many seconds a call goes on trying while the
        server is away. ``unsafe`` accepts a server that may evict keys, and so lose work.
        """
        settings = from_env()
        return cls(
            url or settings.url, namespace or settings.namespace, shards=shards, patience=patience, name=name, unsafe=unsafe
        )  # fmt: skip

    async def open(self) -> Self:
        """Connect, judge the server, and create the mesh if it is new.

        Raises StoreUnavailable, ServerUnfit (too old, evicting, a replica), MeshMismatch (another layout or shard count);
        then nothing is left open.
        """
        try:
            return await self._open()
        except BaseException:
            await self.close()
            raise

    async def _open(self) -> Self:
        if self._embedded:
            await asyncio.to_thread(self._embedded.start)
        await self.store.judge(unsafe=self._unsafe)
        _, layout, shards, clock = await self.store.run(
            "mesh_open", [Keys(self.namespace).prefix()], [LAYOUT, self._shards or 1]
        )
        if int(layout) > LAYOUT:
            raise MeshMismatch(
                f"mesh {self.namespace!r} has layout {layout}, this version knows {LAYOUT}; upgrade streammesh"
            )
        if self._shards is not None and int(shards) != self._shards:
            raise MeshMismatch(
                f"mesh {self.namespace!r} was created with {shards} shards, not {self._shards}; leave shards= out, or use another namespace"
            )
        self.keys = Keys(self.namespace, int(shards))
        self.store.movable = clock == "movable"
        self.replies = Replies(self.store, self.keys)
        self.boundaries = Boundaries()
        self.tasks = Tasks(self.store, self.keys, self.replies, self.boundaries)
        self.timers = Timers(self.store, self.keys)
        self.dead = DeadLetters(self.store, self.keys)
        self.registry = Registry(self.store, self.keys)
        self.roster = Roster(self.store, self.keys)
        self.messages = Messages(self.store, self.keys, self.replies, self.boundaries)
        self.topics = Topics(self.store, self.keys, self.messages)
        self.auctions = Auctions(self.store, self.keys, self.replies, self.tasks, self.registry)
        self.votes = Votes(self.store, self.keys, self.replies, self.registry)
        self.edges = Edges()
        self.asking = Asking(self.roster, self.messages, self.edges)
        self.status = Status(self.store, self.keys)
        self.journal = Journal(self.store, self.keys, self.boundaries)
        self.runlist = RunList(self.store, self.keys)
        self.schedules = Schedules(self.store, self.keys)
        return self

    async def close(self) -> None:
        """Close the connections; an embedded server is stopped when nobody else uses it."""
        if "replies" in self.__dict__:
            await self.replies.close()
        if "roster" in self.__dict__:
            await self.roster.close()
        await self.store.close()
        if self._embedded:
            await asyncio.to_thread(self._embedded.release)

    async def __aenter__(self) -> Self:
        return await self.open()

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    if not TYPE_CHECKING:

        def __getattr__(self, name: str) -> Any:
            """Reached by what `open` makes, before it is made."""
            if name in _ROOMS:
                raise ConfigError("the mesh is not open; use `async with Mesh.connect(…) as mesh:`")
            raise AttributeError(f"a Mesh has no {name!r}")

    def __repr__(self) -> str:
        return f"Mesh({self.namespace!r} at {self.store.where})"
