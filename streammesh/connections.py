"""How connections are made, by URL, and what a server's refusal means. With `store`, the only importer of redis."""

from __future__ import annotations

import re
from collections.abc import Callable
from functools import cache
from typing import Any, Protocol
from urllib.parse import urlsplit

import redis.asyncio.connection as aconn
import redis.connection as sconn
from redis.asyncio.retry import Retry as AsyncRetry
from redis.backoff import NoBackoff
from redis.exceptions import AuthenticationError, ResponseError
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import TimeoutError as RedisTimeoutError
from redis.retry import Retry as SyncRetry

from streammesh.errors import ConfigError, InvalidURL, MeshError, ServerFull, StoreUnavailable

__all__ = ["CALL_TIMEOUT", "Connections", "blocking_client", "connections_for", "meaning", "passing", "redacted"]

#: How long one ordinary call may take, in seconds.
CALL_TIMEOUT = 5.0

_ENCODE = "port, database or an option is wrong, or user or password hold a character such as / ? # [ that has to be percent-encoded"

#: What a server says when it cannot serve now but may soon (matched by prefix: texts differ, prefixes do not).
_PASSING = (
    "LOADING",
    "BUSY ",
    "READONLY",
    "NOREPLICAS",
    "MISCONF",
    "MASTERDOWN",
    "CLUSTERDOWN",
    "TRYAGAIN",
    "ERR max number of clients",
)


class Connections(Protocol):
    """How connections are made: over a socket, or to a fakeredis in this process."""

    where: str
    genuine: bool

    def asynchronous(self, name: str) -> Any: ...

    def synchronous(self, name: str) -> Any: ...


class _Sockets:
    """Connections by URL: ``redis://``, ``rediss://``, ``unix://``."""

    genuine = True

    def __init__(self, url: str) -> None:
        self.where = redacted(url)
        try:
            parts = urlsplit(url)
            if "@" in url.partition("?")[0] and "@" not in parts.netloc + (
                parts.path if parts.scheme == "unix" else ""
            ):
                raise ValueError
            if parts.scheme != "unix" and not re.fullmatch(r"(/\d*)?", parts.path):
                raise ValueError("the database is a number, as in redis://localhost:6379/0")
            self._async = dict(aconn.parse_url(url))
            self._sync = dict(sconn.parse_url(url))  # type: ignore[no-untyped-call]
            self.synchronous("")
        except (ValueError, TypeError) as error:
            # The words of a parser may quote half a password.
            cause = (
                _ENCODE if "@" in url else re.sub(r".*unexpected keyword argument", "there is no option", str(error))
            )
            raise InvalidURL(f"the URL {self.where} cannot be used: {cause}") from None

    def _options(self, parsed: dict[str, Any], default: Any, retry: Any, name: str) -> Any:
        options = dict(parsed)
        kind = options.pop("connection_class", default)
        options.update(
            protocol=2, decode_responses=True, encoding_errors="surrogateescape", client_name=name, retry=retry,
            socket_timeout=None, socket_connect_timeout=CALL_TIMEOUT, health_check_interval=0,
        )  # fmt: skip
        return kind, options

    def asynchronous(self, name: str) -> Any:
        kind, options = self._options(self._async, aconn.Connection, AsyncRetry(NoBackoff(), 0), name)
        return kind(**options)

    def synchronous(self, name: str) -> Any:
        kind, options = self._options(self._sync, sconn.Connection, SyncRetry(NoBackoff(), 0), name)
        return kind(**options | {"socket_timeout": CALL_TIMEOUT})


class _Memory:
    """Connections to a fakeredis that all of this process share by name."""

    genuine = False

    def __init__(self, name: str) -> None:
        try:
            from fakeredis import FakeAsyncRedis, FakeRedis, FakeServer
        except ImportError:
            raise ConfigError("memory:// needs fakeredis: pip install 'streammesh[memory]'") from None
        self.where = f"memory://{name}"
        server = _memory_server(name, FakeServer)
        options: dict[str, Any] = {
            "server": server,
            "decode_responses": True,
            "protocol": 2,
            "encoding_errors": "surrogateescape",
        }
        self._async = FakeAsyncRedis(**options)
        self._sync = FakeRedis(**options)

    def asynchronous(self, name: str) -> Any:
        return self._async.connection_pool.make_connection()  # type: ignore[no-untyped-call]

    def synchronous(self, name: str) -> Any:
        return self._sync.connection_pool.make_connection()


@cache
def _memory_server(name: str, make: Callable[[], Any]) -> Any:
    return make()


def redacted(url: str) -> str:
    """``url`` with its password, and any password in its query, replaced by ``***``; also where the URL is broken."""
    url = re.sub(r"(pass[^=&]*=)[^&]*", r"\1***", url, flags=re.IGNORECASE)
    secret, at, host = url.rpartition("@")
    if not at:
        return url
    # Whatever stands before the last @ may be a password that was not percent-encoded, slashes and all.
    scheme, who = re.match(r"([\w.+-]*:?/{1,2})?(.*)", secret, re.DOTALL).groups()  # type: ignore[union-attr]
    user, colon, _ = who.partition(":")
    return f"{scheme or ''}{user if colon else ''}{colon}***@{host}"


def connections_for(url: str) -> Connections:
    scheme, separator, rest = url.partition("://")
    if not separator:
        raise InvalidURL(f"{redacted('redis://' + url)} is no URL: expected something like redis://localhost:6379")
    if scheme == "memory":
        return _Memory(rest or "default")
    if scheme in ("redis", "rediss", "unix"):
        return _Sockets(url)
    close = {
        "reds": "redis",
        "rdis": "redis",
        "redis+ssl": "rediss",
        "redis-ssl": "rediss",
        "valkey": "redis",
        "valkeys": "rediss",
    }
    hint = f"; did you mean {close[scheme]}://?" if scheme in close else ""
    raise InvalidURL(f"{scheme}:// is not known{hint} (known: redis:// rediss:// unix:// memory:// embedded://)")


def blocking_client(url: str) -> Any:
    """redis-py's own client, as other libraries (RQ) want it: blocking, safe to share between threads, in bytes."""
    from redis import Redis

    if not url.startswith(("redis://", "rediss://", "unix://")):
        raise InvalidURL(f"{redacted(url)} is no URL of a server: expected redis:// rediss:// or unix://")
    return Redis.from_url(url, socket_connect_timeout=CALL_TIMEOUT)


def _said(error: BaseException) -> str:
    """What the server said, with the first word that redis-py takes off where it has a class for it."""
    code, text = getattr(error, "status_code", None), str(error)
    return f"{code} {text}" if code and not text.startswith(code) else text


def meaning(error: BaseException, where: str) -> MeshError:
    """The error of ours that a redis-py error stands for, with cause and cure."""
    said = _said(error)
    if isinstance(error, ResponseError) and said.startswith(("OOM", "server:OOM")):
        return ServerFull(
            f"the server at {where} is out of memory and refused the write; raise maxmemory or finish waiting work"
        )
    if (
        isinstance(error, AuthenticationError)
        or said.startswith(("NOAUTH", "WRONGPASS", "NOPERM"))
        or "ACL failure" in said
    ):
        return ConfigError(
            f"the server at {where} refuses this user: {said}; check user and password in the URL, and the ACL"
        )
    if said.startswith(_PASSING):
        return StoreUnavailable(f"the server at {where} refuses for now: {said}")
    if isinstance(error, RedisConnectionError | RedisTimeoutError | OSError | TimeoutError):
        return StoreUnavailable(f"no answer from the server at {where}: {said or type(error).__name__}; is it running?")
    return MeshError(f"the server at {where} answered: {said}")


def passing(error: BaseException) -> bool:
    if isinstance(error, AuthenticationError):
        return False
    if isinstance(error, RedisConnectionError | RedisTimeoutError | OSError | TimeoutError):
        return True
    return isinstance(error, ResponseError) and _said(error).startswith(_PASSING)
