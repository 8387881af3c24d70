"""What the tests of the scripts share: one shard on each server, and a look at what every test leaves behind."""

from __future__ import annotations

import re
from collections.abc import Iterator

import pytest

import streammesh.keys
from tests.lua.shard import Shard
from tests.servers import Server

OPEN = ("queued", "delayed", "running")
AUCTIONS_ENDED = ("done", "failed", "cancelled", "expired", "no_bids", "all_refused")
ENDED = ("succeeded", "failed", "cancelled")


@pytest.fixture
def shard(each_server: Server, namespace: str) -> Iterator[Shard]:
    """An empty shard; what is left in it is judged, then deleted."""
    one = Shard(each_server.url, namespace)
    try:
        yield one
        assert leaked_keys(one) == []
    finally:
        for key in one.redis.scan_iter(one.prefix + "*", count=10_000):
            one.redis.unlink(key)
        one.close()


def leaked_keys(shard: Shard) -> list[str]:
    """Keys that streammesh/keys.py does not list, that are of another type than it says, or that should end and do not."""
    rules = [
        (re.compile(re.sub(r"<\w+>", r"[^{}]+", re.escape(name).replace("\\<", "<").replace("\\>", ">")) + r"\Z"), type, "TTL" in text)
        for name, type, text in re.findall(r"^ +\{mesh\}:(\S+) +([A-Z]+) +(.*)$", streammesh.keys.__doc__ or "", re.M)
    ]  # fmt: skip
    assert len(rules) > 10, "the list in streammesh/keys.py is not what it was"
    broken = []
    for key in sorted(shard.redis.scan_iter(shard.prefix + "*", count=10_000)):
        word, kind, ends = (
            key.removeprefix(shard.prefix),
            str(shard.redis.type(key)),
            shard.ttl(key.removeprefix(shard.prefix)) > 0,
        )
        listed = [(type, ttl) for name, type, ttl in rules if name.match(word)]
        if kind.upper() not in [type for type, _ in listed]:
            broken.append(f"{word} is a {kind}, which is not listed")
        elif word.startswith("task:"):
            state = shard.redis.hget(key, "state")
            if ends == (state in OPEN):
                broken.append(f"{word} is {state} and {'ends' if ends else 'has no TTL'}")
        elif word.startswith("run:"):
            state = shard.redis.hget(key.removesuffix(":journal").removesuffix(":large"), "state")
            if ends != (state in ENDED):
                broken.append(f"{word} is {state} and {'ends' if ends else 'has no TTL'}")
        elif word.startswith("auction:"):
            state = shard.redis.hget(":".join(key.split(":")[:-1]) if word.count(":") > 1 else key, "state")
            if ends != (state in AUCTIONS_ENDED):
                broken.append(f"{word} is {state} and {'ends' if ends else 'has no TTL'}")
        elif word.startswith("vote:"):
            state = shard.redis.hget(shard.key(":".join(word.split(":")[:2])), "state")
            if ends == (state == "open"):
                broken.append(f"{word} is {state} and {'ends' if ends else 'has no TTL'}")
        elif ends != any(ttl for _, ttl in listed):
            broken.append(f"{word} {'ends' if ends else 'has no TTL'}")
    return broken
