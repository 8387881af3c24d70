"""What one participant of the gossip knows of every owner: namespaces with versions, tombstones and hashes. Pure.

Everyone owns one namespace and alone writes it, so nothing can conflict. A namespace is a generation (a restart begins a
new one), a version that grows by one with each write, and entries that carry the version at which they were written; to
know a namespace up to version v is to know all of it up to v: nothing is ever sent, or taken in, with a gap.

A deleted key stays as a tombstone: told for half the grace, kept to its end; who is further behind than what is told gets
the whole namespace in place of what it has. An owner that is gone is treated likewise, and is remembered when it is forgotten,
so that it does not come back from somebody who is slower.
"""

from __future__ import annotations

from binascii import crc32
from collections import deque
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from hashlib import blake2b
from typing import Any, NamedTuple

from streammesh import codec
from streammesh.errors import InvalidPayload, PayloadTooLarge

__all__ = ["AROUND", "BUCKETS", "FRAME", "Counters", "Knowledge"]

BUCKETS = 64
#: The most bytes of a frame.
FRAME = 16_384
#: Bytes of a frame that are neither items nor digests.
AROUND = 512


class Entry(NamedTuple):
    """A key as its owner wrote it at ``version``; ``size`` is its bytes on the wire."""

    value: Any
    version: int
    deleted: bool
    size: int


@dataclass(slots=True)
class Counters:
    """Since the start: exchanges begun and answered, those that ended at the hash; namespaces replaced because we were too
    far behind; items that did not fit what we know (a gap, a forgery); frames that could not be read."""

    begun: int = 0
    answered: int = 0
    equal: int = 0
    resets: int = 0
    rejected: int = 0
    unreadable: int = 0


@dataclass(slots=True)
class _Namespace:
    generation: int
    bucket: int
    version: int = 0
    #: Tombstones up to this version are not told any more.
    collected: int = 0
    #: In the order of their versions.
    entries: dict[str, Entry] = field(default_factory=dict)
    mark: int = 0
    quiet: bool = False


class Knowledge:
    """The knowledge of ``me``, whose own namespace is in its ``generation`` (grows with each restart).

    ``frame`` is the most bytes of a frame, ``grace`` how many seconds a tombstone lives, ``owner_grace`` an owner that `see`
    no longer sees. ``heard`` is told of each entry that others changed: owner, key, value (None: deleted).
    """

    def __init__(
        self,
        me: str,
        generation: int,
        *,
        frame: int = FRAME,
        grace: float = 3600.0,
        owner_grace: float = 3600.0,
        heard: Callable[[str, str, Any], None] | None = None,
    ) -> None:
        self.me = me
        self.counters = Counters()
        self.peers: list[str] = []
        self._frame = frame
        self._grace = grace
        self._owner_grace = owner_grace
        self._heard = heard
        self._now = 0.0
        self._root = 0
        self._buckets = [0] * BUCKETS
        self._listed: list[dict[str, None]] = [{} for _ in range(BUCKETS)]
        self._known: dict[str, _Namespace] = {}
        #: (when it was deleted, owner, generation, key, version): still told; no longer told, still kept.
        self._told: deque[tuple[float, str, int, str, int]] = deque()
        self._kept: deque[tuple[float, str, int, str, int]] = deque()
        self._gone: dict[str, float] = {}
        self._buried: dict[str, tuple[int, float]] = {}
        #: owner -> [how often it is still to be told, version before the change].
        self._news: dict[str, list[int]] = {}
        self._own = self._known[me] = _Namespace(generation, _bucket(me))

    # -- what we say, and what we know

    def set(self, key: str, value: Any) -> None:
        """Write a key of our own. Raises InvalidPayload for what is no JSON, PayloadTooLarge when our namespace gets too large."""
        if value is None:
            raise InvalidPayload(f"the value of {key!r} is None; delete the key instead")
        known = self._own.entries.get(key)
        if known and not known.deleted and known.value == value:
            return
        size = len(codec.encode([key, value, 2**40], what="value"))
        room = self._frame // 2 - AROUND
        if sum(entry.size for name, entry in self._own.entries.items() if name != key) + size > room:
            raise PayloadTooLarge(f"with {key!r} what {self.me} gossips is more than {room} bytes; say less")
        self._write(key, value, False, size)

    def delete(self, key: str) -> bool:
        """Delete a key of our own; False when there was none."""
        known = self._own.entries.get(key)
        if known is None or known.deleted:
            return False
        self._write(key, None, True, len(key) + 32)
        return True

    def get(self, key: str, owner: str | None = None) -> Any:
        """The value of a key, ours unless ``owner`` is given; None when there is none."""
        known = self._known.get(owner or self.me)
        entry = known.entries.get(key) if known else None
        return entry.value if entry else None

    def view(self, owner: str) -> dict[str, Any]:
        """All that an owner says."""
        known = self._known.get(owner)
        return {key: entry.value for key, entry in known.entries.items() if not entry.deleted} if known else {}

    def owners(self) -> list[str]:
        """Whose namespaces we know, ours among them, in order; those that are gone are left out."""
        return sorted(owner for listed in self._listed for owner in listed)

    def digest(self) -> list[tuple[str, int, int, int]]:
        """(owner, generation, version, collected up to) of all that we know, by owner."""
        return [(owner, *self._place(owner)) for owner in self.owners()]

    @property
    def root(self) -> str:
        """The hash over everything: equal where the same is known. 16 hex digits."""
        return f"{self._root:016x}"

    @property
    def tombstones(self) -> int:
        """Deleted keys that are still kept."""
        return len(self._told) + len(self._kept)

    def _write(self, key: str, value: Any, deleted: bool, size: int) -> None:
        own = self._own
        base = own.version
        own.version += 1
        self._enter(self.me, own, key, Entry(value, own.version, deleted, size))
        self._learned(self.me, own, base)

    def _enter(self, owner: str, known: _Namespace, key: str, entry: Entry) -> None:
        known.entries.pop(key, None)
        known.entries[key] = entry
        if entry.deleted:
            self._told.append((self._now, owner, known.generation, key, entry.version))

    def _learned(self, owner: str, known: _Namespace, base: int) -> None:
        """Its version has changed: hash it anew, and tell it on."""
        self._mark(owner, known)
        waiting = self._news.get(owner)
        times = max(2, len(self.peers).bit_length())
        self._news[owner] = [times, min(base, waiting[1]) if waiting else base]

    def _mark(self, owner: str, known: _Namespace) -> None:
        shown = known.version > 0 and not known.quiet
        said = f"{owner} {known.generation} {known.version}".encode()
        mark = int.from_bytes(blake2b(said, digest_size=8).digest()) if shown else 0
        self._root ^= known.mark ^ mark
        self._buckets[known.bucket] ^= known.mark ^ mark
        known.mark = mark
        if shown:
            self._listed[known.bucket][owner] = None
        else:
            self._listed[known.bucket].pop(owner, None)

    def _place(self, owner: str) -> tuple[int, int, int]:
        known = self._known.get(owner)
        return (known.generation, known.version, known.collected) if known else (0, 0, 0)

    # -- time

    def see(self, peers: Iterable[str], now: float) -> None:
        """Who lives: whom we gossip with. An owner not among them is not told of any more after half its grace, and forgotten at its end."""
        living = dict.fromkeys(peers)
        living.pop(self.me, None)
        self.peers = sorted(living)
        for owner in living:
            self._buried.pop(owner, None)
            if self._gone.pop(owner, None) is not None and self._known[owner].quiet:
                self._known[owner].quiet = False
                self._mark(owner, self._known[owner])
        for owner in self._known:
            if owner not in living and owner != self.me:
                self._gone.setdefault(owner, now)

    def _collect(self, now: float) -> None:
        while self._told and now - self._told[0][0] >= self._grace / 2:
            stone = self._told.popleft()
            self._kept.append(stone)
            _, owner, generation, _, version = stone
            known = self._known.get(owner)
            if known and known.generation == generation:
                known.collected = max(known.collected, version)
        while self._kept and now - self._kept[0][0] >= self._grace:
            _, owner, generation, key, version = self._kept.popleft()
            known = self._known.get(owner)
            entry = known.entries.get(key) if known and known.generation == generation else None
            if known and entry and entry.version == version:
                del known.entries[key]
        for owner, since in list(self._gone.items()):
            known = self._known[owner]
            if not known.quiet and now - since >= self._owner_grace / 2:
                known.quiet = True
                self._mark(owner, known)
                self._news.pop(owner, None)
            if now - since >= self._owner_grace:
                self._buried[owner] = known.generation, now
                del self._known[owner], self._gone[owner]
        # They are in the order of their burials.
        while self._buried and now - (first := next(iter(self._buried.items())))[1][1] > 2 * self._owner_grace:
            del self._buried[first[0]]

    def _welcome(self, owner: str, generation: int) -> bool:
        """Whether we want to hear of an owner: not of ourselves, and not of what we have let go."""
        known = self._known.get(owner)
        if known and known.quiet and generation <= known.generation:
            return False
        return owner != self.me and generation > self._buried.get(owner, (-1, 0.0))[0]

    # -- items: [owner, generation, version after which it begins (0: the whole), version up to which, collected, entries]

    def _items(self, theirs: Mapping[str, tuple[int, int, int]], room: int) -> list[Any]:
        """What they lack of these owners: those unknown to them first, then those of which most is missing."""
        lacking = []
        for owner, (generation, version, _) in theirs.items():
            known = self._known.get(owner)
            if known and not known.quiet and (known.generation, known.version) > (generation, version):
                base = version if generation == known.generation else 0
                lacking.append((base > 0, base - known.version, owner, base))
        lacking.sort(key=lambda one: one[:2])
        items = []
        for _, _, owner, base in lacking:
            item, size = self._item(owner, base, room)
            if item:
                items.append(item)
                room -= size
        return items

    def _item(self, owner: str, base: int, room: int) -> tuple[list[Any] | None, int]:
        """What is after ``base`` and fits into ``room`` bytes, cut at the tail. The whole is never cut: it takes the place of what is there."""
        known = self._known[owner]
        if base < known.collected:
            base = 0
        picked: list[list[Any]] = []
        size, upto = len(owner) + 64, known.version
        for key in reversed(known.entries):
            entry = known.entries[key]
            if entry.version <= base:
                break
            if not entry.deleted or entry.version > known.collected:
                picked.append([key, entry.value, entry.version, int(entry.deleted)])
                size += entry.size + 8
        picked.reverse()
        while size > room and base and len(picked) > 1:
            key, _, _, _ = picked.pop()
            size -= known.entries[key].size + 8
            upto = picked[-1][2]
        if size > room:
            return None, 0
        return [owner, known.generation, base, upto, known.collected, picked], size

    def _apply(self, owner: str, generation: int, base: int, version: int, collected: int, entries: list[Any]) -> str:
        """Take in one item if it goes on where our knowledge ends; returns its owner, '' when it did not."""
        parsed = [(str(key), Entry(value, int(at), bool(dead), 0)) for key, value, at, dead in entries]
        known = self._known.get(owner)
        if not self._welcome(owner, generation):
            self.counters.rejected += owner == self.me and (generation, version) > (
                self._own.generation,
                self._own.version,
            )
            return ""
        if known and (generation, version) <= (known.generation, known.version):
            return owner if (generation, version) == (known.generation, known.version) else ""
        behind = known is None or generation > known.generation or known.version < collected
        if base > (0 if behind or known is None else known.version):
            # It begins after the end of what we know: taken in, it would leave a gap.
            self.counters.rejected += 1
            return ""
        before = dict[str, Entry]()
        if known is None or generation > known.generation or behind:
            if known:
                self.counters.resets += generation == known.generation
                self._gone.pop(owner, None)
                before = known.entries
                known.quiet = True
                self._mark(owner, known)
            known = self._known[owner] = _Namespace(generation, _bucket(owner))
        start = known.version
        known.version = version
        known.collected = max(known.collected, collected) if start == 0 else known.collected
        for key, entry in parsed:
            if entry.version > start:
                size = len(codec.encode([key, entry.value, entry.version, 0], what="value"))
                self._enter(owner, known, key, entry._replace(size=size))
                before.pop(key, None)
                self._tell(owner, key, entry)
        for key, entry in before.items():
            self._tell(owner, key, entry._replace(value=None))
        self._learned(owner, known, start)
        return owner

    def _tell(self, owner: str, key: str, entry: Entry) -> None:
        if self._heard:
            self._heard(owner, key, entry.value)


def _bucket(owner: str) -> int:
    return crc32(owner.encode()) % BUCKETS
