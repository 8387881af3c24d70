"""Dead letters: tasks that could not be done, kept with payload and cause until somebody replays or removes them."""

from __future__ import annotations

import re
from collections.abc import AsyncIterator
from dataclasses import dataclass

from streammesh.keys import Keys
from streammesh.record import new_id
from streammesh.store import Store

__all__ = ["DeadLetters", "Letter"]


@dataclass(frozen=True, slots=True)
class Letter:
    """One dead letter. ``entry`` is its place in the stream ``{mesh}:dead:<capability>`` of ``shard``.

    ``reason`` is a word (`attempts`, `poison`, `invalid_payload`, `agent_died` …), ``error`` the text of the last error.
    """

    shard: int
    capability: str
    entry: str
    id: str
    payload: str
    reason: str
    error: str
    attempts: int
    agent: str
    at: str


class DeadLetters:
    """The room of dead letters in one mesh."""

    def __init__(self, store: Store, keys: Keys) -> None:
        self._store = store
        self._keys = keys

    async def counts(self) -> dict[str, int]:
        """Capability -> number of dead letters, only where there are any."""
        counts: dict[str, int] = {}
        for shard in range(self._keys.shards):
            names = sorted(await self._store.command("SMEMBERS", self._keys.caps(shard)))
            lengths = await self._store.commands([("XLEN", self._keys.dead(name, shard)) for name in names])
            for name, length in zip(names, lengths, strict=True):
                if length:
                    counts[name] = counts.get(name, 0) + length
        return counts

    async def letters(
        self, capability: str | None = None, *, error: str | None = None, since: str | None = None
    ) -> AsyncIterator[Letter]:
        """Dead letters, oldest first per capability; ``error`` is a regular expression over reason and error, ``since`` an ISO time."""
        pattern = re.compile(error) if error else None
        for shard in range(self._keys.shards):
            names = (
                [capability] if capability else sorted(await self._store.command("SMEMBERS", self._keys.caps(shard)))
            )
            for name in names:
                start = "-"
                while True:
                    entries = await self._store.command(
                        "XRANGE", self._keys.dead(name, shard), start, "+", "COUNT", 200
                    )
                    for entry, flat in entries:
                        f = dict(zip(flat[::2], flat[1::2], strict=True))
                        letter = Letter(
                            shard, name, entry, f.get("id", ""), f.get("payload", ""), f.get("reason", ""), f.get("error", ""),
                            int(f.get("attempts") or 0), f.get("agent", ""), f.get("at", ""),
                        )  # fmt: skip
                        if pattern and not pattern.search(f"{letter.reason}: {letter.error}"):
                            continue
                        if since and letter.at < since:
                            continue
                        yield letter
                    if len(entries) < 200:
                        break
                    start = "(" + entries[-1][0]

    async def replay(self, letter: Letter) -> str:
        """Run a dead task again under the same id with a fresh budget, and take its letter away; 'ok <id>', 'open <state>', 'missing' or 'message'."""
        words: list[str] = await self._store.run(
            "task_retry", [self._keys.prefix(letter.shard)], [new_id(), letter.id, letter.capability, letter.entry]
        )
        return words[0]

    async def remove(self, letter: Letter) -> bool:
        """Take a letter away for good; the record stays until its retention ends. False when it was gone already."""
        return bool(await self._store.command("XDEL", self._keys.dead(letter.capability, letter.shard), letter.entry))
