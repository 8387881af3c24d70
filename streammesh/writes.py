"""Writes that a workflow commits together with its journal: which commands, and which keys.

The lists of commands here and in ``lua/run_commit.lua`` are one; there it also says which type each of them wants.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from streammesh.errors import InvalidPayload

__all__ = ["COMMANDS", "checked"]

#: Commands that write to one key, their first argument, and return something that JSON has.
_NAMES = """
SET SETNX SETEX PSETEX APPEND INCR INCRBY INCRBYFLOAT DECR DECRBY HSET HSETNX HDEL HINCRBY HINCRBYFLOAT LPUSH RPUSH LREM LTRIM
SADD SREM ZADD ZINCRBY ZREM XADD DEL EXPIRE PEXPIRE PERSIST
"""
COMMANDS = frozenset(_NAMES.split())
#: The most commands and bytes of one list, and the most words of one command.
MOST, MOST_BYTES, MOST_WORDS = 100, 256 * 1024, 1000


def checked(writes: Sequence[Sequence[Any]], prefix: str) -> list[str]:
    """The words of ``writes`` for `run_commit`: their number, then for each the number of its words and these.

    Raises InvalidPayload: an unknown command, a key that does not begin with ``prefix``, a value that is no text or number.
    """
    if not 0 < len(writes) <= MOST:
        raise InvalidPayload(
            f"run.redis takes 1 to {MOST} writes, such as ('SET', run.key('stock'), 5); it got {len(writes)}"
        )
    flat = [str(len(writes))]
    for write in writes:
        if isinstance(write, str | bytes) or len(write) < 2:
            raise InvalidPayload(f"{write!r} is no write; expected a tuple such as ('SET', run.key('stock'), 5)")
        name, key = str(write[0]).upper(), write[1]
        if name not in COMMANDS:
            raise InvalidPayload(f"run.redis cannot do {name}; it can do {' '.join(sorted(COMMANDS))}")
        if not isinstance(key, str) or not key.startswith(prefix) or key == prefix:
            raise InvalidPayload(
                f"the key {key!r} is not one that lives with the run; use run.key('…'), which begins with {prefix}"
            )
        if name == "DEL" and len(write) > 2:
            raise InvalidPayload("run.redis deletes one key with each DEL")
        words = [name, key, *(_word(value) for value in write[2:])]
        if len(words) > MOST_WORDS:
            raise InvalidPayload(f"{name} has {len(words)} words, {MOST_WORDS} are allowed; use several")
        flat += (str(len(words)), *words)
    size = sum(len(word.encode()) for word in flat)
    if size > MOST_BYTES:
        raise InvalidPayload(f"the writes have {size} bytes, {MOST_BYTES} are allowed; store large values in a step")
    return flat


def _word(value: Any) -> str:
    if isinstance(value, bool) or not isinstance(value, str | int | float):
        raise InvalidPayload(f"{value!r} is neither text nor a number; encode it, for example as JSON")
    return str(value)
