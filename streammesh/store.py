"""The door to the server: connections, scripts, and what a refusal means. With `connections`, the only importer of redis.

Everything above speaks in scripts (`run`) and few plain commands (`command`). redis-py's own retries are off, because they
would send a write twice without anybody knowing; ours repeat only what is safe to repeat: every script of the project is.
"""

from __future__ import annotations

import asyncio
import logging
import re
from collections.abc import AsyncIterator, Callable, Iterable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from functools import cache
from hashlib import sha1
from importlib import resources
from typing import Any

from redis.exceptions import NoScriptError, RedisError, ResponseError
from tenacity import AsyncRetrying, retry_if_exception_type, stop_after_delay, wait_random_exponential

from streammesh.connections import CALL_TIMEOUT, connections_for, meaning, passing
from streammesh.errors import ServerUnfit, StoreUnavailable

__all__ = ["BLOCK", "Link", "Reply", "Script", "Store", "ThreadLink", "load_script"]

#: The longest blocking read, in seconds; its connection waits 3 s longer before it is given up.
BLOCK = 2.0

Reply = Any
_log = logging.getLogger("streammesh.store")


@dataclass(frozen=True, slots=True)
class Script:
    """One Lua script: its name, its whole text, and the digest that EVALSHA wants."""

    name: str
    text: str
    digest: str


@cache
def load_script(name: str, *, shebang: bool = True, movable: bool = False) -> Script:
    """The script `lua/<name>.lua`: its `#!lua` line, then the prelude and those that a line ``-- With …`` names, then its body.

    ``shebang=False`` leaves the first line out, for fakeredis, which does not know it. ``movable`` is for meshes under test:
    their clock may be ahead of the server's.
    """
    folder = resources.files("streammesh") / "lua"
    first, _, body = (folder / f"{name}.lua").read_text(encoding="utf-8").partition("\n")
    named = re.search(r"^-- With (.+)$", body, re.MULTILINE)
    preludes = [
        "prelude",
        "prelude_task",
        *(["prelude_clock"] if movable else []),
        *(named[1].split(", ") if named else ()),
    ]
    shared = "".join((folder / f"{prelude}.lua").read_text(encoding="utf-8") for prelude in preludes)
    text = (first + "\n" if shebang else "") + shared + body
    return Script(name, text, sha1(text.encode()).hexdigest())


class _Unserved(Exception):
    """Carries a passing refusal through tenacity."""


class Link:
    """One connection, used by one call at a time, made anew when it breaks."""

    def __init__(self, store: Store, role: str, owner: str = "") -> None:
        self._store = store
        self._name = f"{owner or store.name}:{role}"
        self._connection: Any = None
        self._lock = asyncio.Lock()
        #: The server's number for this connection, once asked for; what CLIENT UNBLOCK wants.
        self.client_id: int | None = None

    async def call(self, *args: Any, timeout: float = CALL_TIMEOUT) -> Reply:
        """Send one command and return its reply; raises redis-py's errors untranslated, and closes on a broken call."""
        async with self._lock:
            connection = self._made()
            try:
                async with asyncio.timeout(timeout):
                    if not connection.is_connected:
                        await connection.connect()
                        self.client_id = None
                    await connection.send_command(*args, check_health=False)
                    return await connection.read_response(timeout=timeout)
            except ResponseError:
                raise
            except BaseException:
                # Whatever was on its way back would be taken for the next call's answer.
                self._connection = None
                self.client_id = None
                await connection.disconnect(nowait=True)
                raise

    def _made(self) -> Any:
        if self._store.closed:
            raise StoreUnavailable(f"the connection to {self._store.where} was closed; open the mesh again")
        if self._connection is None:
            self._connection = self._store.connections.asynchronous(self._name)
        return self._connection

    async def pipeline(self, commands: Sequence[Sequence[Any]], timeout: float = CALL_TIMEOUT) -> list[Reply]:
        """Send many commands in one write; a refused one leaves its ResponseError in its place."""
        async with self._lock:
            connection = self._made()
            replies: list[Reply] = []
            try:
                async with asyncio.timeout(timeout):
                    if not connection.is_connected:
                        await connection.connect()
                    if self._store.connections.genuine:
                        await connection.send_packed_command(connection.pack_commands(commands), check_health=False)
                    for command in commands:
                        if not self._store.connections.genuine:
                            await connection.send_command(*command, check_health=False)
                        try:
                            replies.append(await connection.read_response(timeout=timeout))
                        except ResponseError as error:
                            replies.append(error)
                return replies
            except BaseException:
                self._connection = None
                await connection.disconnect(nowait=True)
                raise

    async def close(self) -> None:
        connection, self._connection = self._connection, None
        if connection is not None:
            await connection.disconnect(nowait=True)


class ThreadLink:
    """One blocking connection for a thread of its own. Not shared."""

    def __init__(self, store: Store, role: str, owner: str = "") -> None:
        self._store = store
        self._connection = store.connections.synchronous(f"{owner or store.name}:{role}")

    def run(self, name: str, keys: Sequence[Any], args: Sequence[Any]) -> Reply:
        """Run a script once. Raises StoreUnavailable and its kin; the caller decides when to try again."""
        script = self._store.script(name)
        try:
            try:
                return self._call("EVALSHA", script.digest, len(keys), *keys, *args)
            except NoScriptError:
                return self._call("EVAL", script.text, len(keys), *keys, *args)
        except (RedisError, OSError) as error:
            raise meaning(error, self._store.where) from error

    def _call(self, *args: Any) -> Reply:
        try:
            self._connection.send_command(*args, check_health=False)
            return self._connection.read_response()
        except ResponseError:
            raise
        except BaseException:
            self._connection.disconnect()
            raise

    def broken(self) -> bool:
        """Whether the server has closed the connection while nothing was asked of it; then the next call makes a new one."""
        if not self._store.genuine or self._connection._sock is None:
            return False
        try:
            # Nothing is expected: whatever can be read is the end.
            ended = bool(self._connection.can_read(0))
        except (RedisError, OSError):
            ended = True
        if ended:
            self._connection.disconnect()
        return ended

    def close(self) -> None:
        self._connection.disconnect()


class Store:
    """A server and the ways to it.

    ``patience`` is how long, in seconds, a call goes on trying while the server is away or refuses for now, before it
    raises StoreUnavailable; ``None`` means for ever (agents).
    """

    def __init__(self, url: str, *, name: str = "streammesh", patience: float | None = 10.0) -> None:
        self.connections = connections_for(url)
        self.where = self.connections.where
        self.name = name
        self.patience = patience
        self.closed = False
        #: Whether the mesh is under test, and its clock may be moved.
        self.movable = False
        self._links: list[Link] = []
        self._idle: list[Link] = []

    @property
    def genuine(self) -> bool:
        """Whether this is a real server, rather than fakeredis."""
        return self.connections.genuine

    def script(self, name: str) -> Script:
        return load_script(name, shebang=self.connections.genuine, movable=self.movable)

    async def ahead(self, key: str) -> int:
        """By how many ms the mesh's clock is ahead of the server's; ``key`` says so in meshes under test, elsewhere it is not read."""
        return int(await self.command("GET", key) or 0) if self.movable else 0

    def link(self, role: str, owner: str = "") -> Link:
        """A connection of its own: for blocking reads, or for one stream of calls. The server knows it as ``owner:role``."""
        link = Link(self, role, owner)
        self._links.append(link)
        return link

    @asynccontextmanager
    async def _borrowed(self) -> AsyncIterator[Link]:
        link = self._idle.pop() if self._idle else self.link("call")
        try:
            yield link
        finally:
            self._idle.append(link)

    async def run(self, name: str, keys: Sequence[Any], args: Sequence[Any], link: Link | None = None) -> Reply:
        """Run a script; try again while the server is away (every script is safe to repeat)."""
        script = self.script(name)
        if link is None:
            async with self._borrowed() as borrowed:
                return await self.run(name, keys, args, borrowed)

        async def once() -> Reply:
            try:
                return await link.call("EVALSHA", script.digest, len(keys), *keys, *args)
            except NoScriptError:
                return await link.call("EVAL", script.text, len(keys), *keys, *args)

        return await self._patiently(once)

    async def command(
        self, *args: Any, link: Link | None = None, timeout: float = CALL_TIMEOUT, patient: bool = True
    ) -> Reply:
        """One plain command that is safe to repeat."""
        if link is None:
            async with self._borrowed() as borrowed:
                return await self.command(*args, link=borrowed, timeout=timeout, patient=patient)

        async def once() -> Reply:
            return await link.call(*args, timeout=timeout)

        if patient:
            return await self._patiently(once)
        try:
            return await once()
        except (RedisError, OSError, TimeoutError) as error:
            raise meaning(error, self.where) from error

    async def commands(self, commands: Iterable[Sequence[Any]]) -> list[Reply]:
        """Many reads in one round trip; a refused one leaves its error in its place."""
        listed = list(commands)
        if not listed:
            return []
        async with self._borrowed() as link:
            return list(await self._patiently(lambda: link.pipeline(listed)))

    async def _patiently(self, once: Callable[[], Any]) -> Reply:
        try:
            return await once()
        except (RedisError, OSError, TimeoutError) as error:
            if not passing(error):
                raise meaning(error, self.where) from error
            first = error
            _log.warning("no answer from %s, trying again: %s", self.where, error or type(error).__name__)

        async def again() -> Reply:
            nonlocal first
            try:
                return await once()
            except (RedisError, OSError, TimeoutError) as error:
                if not passing(error):
                    raise meaning(error, self.where) from error
                first = error
                raise _Unserved from error

        if self.patience == 0:
            raise meaning(first, self.where) from first
        options: dict[str, Any] = {} if self.patience is None else {"stop": stop_after_delay(self.patience)}
        try:
            return await AsyncRetrying(
                wait=wait_random_exponential(multiplier=0.05, max=1.0),
                retry=retry_if_exception_type(_Unserved),
                reraise=True,
                **options,
            )(again)
        except _Unserved:
            raise meaning(first, self.where) from first

    async def judge(self, *, unsafe: bool = False) -> dict[str, str]:
        """Refuse a server that would lose work; returns what INFO says of it. Raises ServerUnfit, StoreUnavailable.

        ``unsafe`` accepts one that may evict keys.
        """
        if not self.genuine:
            return {}
        said: str = await self.command("INFO")
        info = dict(line.split(":", 1) for line in said.splitlines() if ":" in line)
        version = info.get("valkey_version") or info.get("redis_version", "0")
        if int(info.get("redis_version", "0").split(".")[0]) < 7:
            raise ServerUnfit(f"the server at {self.where} is version {version}; Redis 7.0 or Valkey 8 is needed")
        if info.get("role") == "slave":
            raise ServerUnfit(f"the server at {self.where} is a read-only replica; give the URL of its primary")
        policy = info.get("maxmemory_policy", "noeviction")
        if policy != "noeviction" and not unsafe:
            raise ServerUnfit(
                f"the server at {self.where} has maxmemory-policy {policy}: when memory runs out it would delete tasks in silence; "
                "CONFIG SET maxmemory-policy noeviction"
            )
        return info

    async def drop(self, link: Link) -> None:
        """Close a connection that is not needed any more."""
        if link in self._links:
            self._links.remove(link)
        await link.close()

    async def unblock(self, link: Link) -> None:
        """Wake ``link`` from its blocking read, as if the time had run out. Safe when it is not blocked."""
        if link.client_id is not None:
            await self.command("CLIENT", "UNBLOCK", link.client_id, patient=False)

    async def close(self) -> None:
        """Close every connection; later calls raise StoreUnavailable."""
        self.closed = True
        for link in self._links:
            await link.close()
        self._links.clear()
        self._idle.clear()
