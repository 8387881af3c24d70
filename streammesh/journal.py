"""Runs on record: start, commit, deliver, act, read. Every change is one script; the journal is a list of readable JSON."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from streammesh import codec
from streammesh.batch import Batch
from streammesh.boundaries import Boundaries, refusal
from streammesh.commands import Effect
from streammesh.errors import RunConflict, RunNotFound, StepNotFound
from streammesh.forks import opening
from streammesh.keys import Keys, check_id, check_name, check_run_id
from streammesh.record import lineage, new_id
from streammesh.store import Store

__all__ = ["Commit", "Head", "Journal"]

#: How long, in seconds, a finished run is kept.
KEPT = 7 * 86400.0
#: How a short record ends that stands for a large one.
_LARGE = re.compile(r',"large":(\d+),"bytes":\d+\}\Z')


@dataclass(frozen=True, slots=True)
class Commit:
    """What one execution commits. ``last``: the end of the last record that it knows. ``then``: continue, park, succeeded, failed, cancelled, stuck or again; ``value`` goes with it."""

    id: str
    attempt: int
    number: int
    seen: int
    last: bytes
    then: str
    value: str | bytes
    records: Sequence[bytes]
    effects: Sequence[Effect]


@dataclass(frozen=True, slots=True)
class Head:
    """The head of a run: every field as text."""

    id: str
    fields: Mapping[str, str]

    @property
    def state(self) -> str:
        return self.fields.get("state", "")

    @property
    def workflow(self) -> str:
        return self.fields.get("capability", "")

    @property
    def status(self) -> Any:
        return codec.decode(self.fields["status"]) if "status" in self.fields else {}

    @property
    def open(self) -> dict[str, str]:
        """Open commands: path -> what was set in motion."""
        return {name[5:]: value for name, value in self.fields.items() if name.startswith("open ")}


class Journal:
    """The room of runs in one mesh."""

    def __init__(self, store: Store, keys: Keys, boundaries: Boundaries | None = None) -> None:
        self.boundaries = boundaries or Boundaries()
        self._store = store
        self._keys = keys
        self._commits: dict[str, list[Batch[Commit, list[str]]]] = {}
        self._starts = [self._starting(shard) for shard in range(keys.shards)]

    # -- for clients

    def _starting(self, shard: int) -> Batch[list[Any], str]:
        link = self._store.link("start")

        async def send(items: list[list[Any]]) -> Sequence[str]:
            args: list[Any] = [len(items)]
            for item in items:
                args += item
            words: list[str] = await self._store.run("run_start", [self._keys.prefix(shard)], args, link)
            return words

        return Batch(send, limit=200)

    async def start(
        self,
        workflow: str,
        input: Mapping[str, Any],
        *,
        id: str,
        version: int = 1,
        on_conflict: str = "attach",
        signals: Sequence[tuple[str, Any]] = (),
        pairs: Mapping[str, str] | None = None,
    ) -> bool:
        """Start a run; True when it is new, False when a run of that id was attached to. Raises RunConflict."""
        check_name(workflow, "workflow")
        check_run_id(id)
        records = [codec.encode({"what": "signal", "name": name, "payload": payload}) for name, payload in signals]
        flat: list[Any] = [item for pair in (pairs or {}).items() for item in pair]
        line = lineage.get()
        if line is not None:
            flat += (*line.pairs(), "by", line.agent, "bounds", self.boundaries.for_task())
        word = await self._starts[self._keys.shard_of(id)].put(
            [
                id,
                workflow,
                version,
                codec.encode(dict(input)),
                on_conflict,
                len(records),
                *records,
                len(flat) // 2,
                *flat,
            ]
        )
        if word.startswith("conflict"):
            raise RunConflict(
                f"run {id} is there already ({word.partition(' ')[2]}); use another id, or on_conflict='attach'"
            )
        if word.startswith("refused"):
            raise refusal(word, f"run {id} of {workflow!r}", line)
        return word == "ok"

    async def deliver(self, id: str, what: str, name: str, payload: Any = None, signal_id: str = "") -> str:
        """Deliver a signal or a cancellation; 'ok', 'duplicate' or 'closed'. Raises RunNotFound."""
        word: str = await self._store.run(
            "run_deliver", [self._keys.prefix(self._keys.shard_of(check_id(id, "run id")))],
            [id, what, name, codec.encode(payload), signal_id],
        )  # fmt: skip
        return self._found(id, word)

    async def act(self, id: str, verb: str, *, by: str = "client") -> str:
        """terminate, pause or resume a run; 'ok', 'closed <state>' or 'unchanged <state>'. Raises RunNotFound."""
        word: str = await self._store.run(
            "run_act",
            [self._keys.prefix(self._keys.shard_of(check_id(id, "run id")))],
            [id, verb, by, int(KEPT * 1000)],
        )
        return self._found(id, word)

    async def fork(self, of: str, path: str, *, id: str, input: Mapping[str, Any] | None = None) -> bool:
        """Start the run ``id`` with what the run ``of`` did before the command at ``path``; False when this fork was made before.

        Raises RunNotFound, StepNotFound, RunConflict.
        """
        texts = await self._texts(of)
        if not texts:
            self._found(of, "missing")
        records = [_decoded(text) for text in texts]
        first, places = opening(records, of, path, input)
        start = records[0]
        word: str = await self._store.run(
            "run_fork", [self._keys.prefix(self._keys.shard_of(check_run_id(id)))],
            [id, start["workflow"], start["version"], start.get("generation", ""), of, path, first, len(places)]
            + [texts[place] for place in places],
        )  # fmt: skip
        if word.startswith("conflict"):
            raise RunConflict(f"run {id} is there already ({word.partition(' ')[2]}); a fork needs another id")
        return word == "ok"

    async def skip(self, id: str, path: str, result: Any = None, *, by: str = "operator") -> str:
        """Answer the open command at ``path`` with ``result``; 'ok' or 'closed <state>'. Raises RunNotFound, StepNotFound."""
        word: str = await self._store.run(
            "run_skip", [self._keys.prefix(self._keys.shard_of(check_id(id, "run id")))],
            [id, path, codec.encode(result, what="result of the step"), by, new_id()],
        )  # fmt: skip
        if word == "not_open":
            some = ", ".join(sorted((await self.head(id)).open)) or "nothing"
            raise StepNotFound(f"run {id} has no open step at path {path!r}; open: {some}")
        return self._found(id, word)

    def _found(self, id: str, word: str) -> str:
        if word == "missing":
            raise RunNotFound(
                f"there is no run {id}: never started in this mesh, or finished longer ago than its retention"
            )
        return word

    async def head(self, id: str) -> Head:
        """The head of a run. Raises RunNotFound."""
        flat: list[str] = await self._store.command("HGETALL", self._keys.run(check_id(id, "run id")))
        if not flat:
            self._found(id, "missing")
        return Head(id, dict(zip(flat[::2], flat[1::2], strict=True)))

    async def history(self, id: str) -> list[dict[str, Any]]:
        """The journal of a run, oldest record first."""
        return [_decoded(text) for text in await self._texts(id)]

    async def _texts(self, id: str) -> list[str]:
        key = self._keys.run(check_id(id, "run id")) + ":journal"
        texts: list[str] = await self._store.command("LRANGE", key, 0, -1)
        large = {place: found[1] for place, text in enumerate(texts) if (found := _LARGE.search(text[-48:]))}
        if large:
            whole = await self._store.command("HMGET", self._keys.large(id), *large.values())
            for place, text in zip(large, whole, strict=True):
                texts[place] = text or texts[place]
        return texts

    # -- for agents

    async def commit(self, agent: str, commit: Commit) -> list[str]:
        """Commit; the first word says how it went ('ok', 'more', 'fenced'), the rest are records told meanwhile.

        Commits of many runs share round trips.
        """
        batches = self._commits.get(agent)
        if batches is None:
            batches = self._commits[agent] = [self._committing(shard, agent) for shard in range(self._keys.shards)]
        return await batches[self._keys.shard_of(commit.id)].put(commit)

    def _committing(self, shard: int, agent: str) -> Batch[Commit, list[str]]:
        link = self._store.link("commit")

        async def send(commits: list[Commit]) -> Sequence[list[str]]:
            keys = [self._keys.prefix(shard)]
            index: dict[str, int] = {}
            args: list[Any] = [agent, len(commits)]
            for one in commits:
                args += (
                    one.id,
                    one.attempt,
                    one.number,
                    one.seen,
                    one.last,
                    one.then,
                    one.value,
                    int(KEPT * 1000),
                    len(one.records),
                    *one.records,
                )
                args.append(len(one.effects))
                for effect in one.effects:
                    rest = effect.args
                    if effect.verb == "task":
                        stream = str(rest[0])
                        at = index.get(stream)
                        if at is None:
                            keys.append(stream)
                            at = index[stream] = len(keys)
                        rest = (at, *rest[1:])
                    args += (effect.verb, effect.path, len(rest), *rest)
            replies: list[list[str]] = await self._store.run("run_commit", keys, args, link)
            return replies

        return Batch(send, limit=200, weight=lambda one: sum(map(len, one.records)) + 200 * len(one.effects))


def _decoded(text: str) -> dict[str, Any]:
    record: dict[str, Any] = codec.decode(text, what="journal record", limit=64 * 1024 * 1024)
    return record
