"""Forks: a run that begins with what another one did before some step, and does that step and all later ones anew.

The journal of a fork begins with the records that it took over, under a first record that says from whom:

    {"what":"start", …, "seed":"digest-1","fork":{"of":"digest-1","from":"summarize.3","records":7},"clock":[[4,"2026-…Z"]]}

``records`` counts the taken over ones with the first; ``seed`` is the run whose chance (random, uuid) they were made with;
``clock`` says that after so many notifications it was that time: the time of the fork, where new steps begin. What was open
at that place is set in motion once more under the ids of the new run, and a ``reissued`` record says that it was.
Nothing here talks to a server.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import datetime
from typing import Any

from streammesh import codec
from streammesh.commands import Effect
from streammesh.errors import StepNotFound
from streammesh.records import COMMANDS, is_told

__all__ = ["Inherited", "opening", "taken_over"]

#: Verbs that open no command which somebody will answer.
_DONE_AT_ONCE = frozenset(("drop", "redis", "status"))
#: Paths that are listed when one is not known.
_LISTED = 40


def taken_over(records: Sequence[Mapping[str, Any]], path: str) -> tuple[list[int], int]:
    """Places of the records that a fork from the command at ``path`` takes over, and how many notifications came before it.

    All notifications up to that place are kept, and all commands that were given before; of those that were open, results
    that came later as well. Raises StepNotFound.
    """
    order: dict[str, tuple[int, int]] = {}
    for place, record in enumerate(records):
        if record["what"] in COMMANDS:
            order.setdefault(record["path"], (record["after"], place))
    if path not in order:
        some = ", ".join(list(order)[:_LISTED]) or "none"
        more = f" and {len(order) - _LISTED} more" if len(order) > _LISTED else ""
        raise StepNotFound(f"there is no step at path {path!r}; the run has: {some}{more}")
    after = order[path][0]
    kept = {one for one, place in order.items() if place < order[path]}
    numbers, number = [0], 0
    for record in records[1:]:
        number += is_told(record)
        numbers.append(number)
        if record["what"] == "step" and "error" in record and number > after:
            kept.discard(record["path"])
    places = []
    for place, record in enumerate(records[1:], 1):
        if record["what"] in COMMANDS:
            keep = record["path"] in kept
        elif not is_told(record) or record["what"] == "end":
            keep = False
        else:
            keep = numbers[place] <= after or (record["what"] == "done" and record["of"] in kept)
        if keep:
            places.append(place)
    return places, after


def opening(
    records: Sequence[Mapping[str, Any]], of: str, path: str, input: Mapping[str, Any] | None = None
) -> tuple[bytes, list[int]]:
    """The first record of a fork, as JSON up to where the time of the fork goes (``"]]}`` is to follow), and the places of
    the records that come after it. Raises StepNotFound."""
    places, after = taken_over(records, path)
    first = {name: value for name, value in records[0].items() if name not in ("fork", "clock", "seed")}
    if input is not None:
        first["input"] = dict(input)
    first["seed"] = records[0].get("seed", of)
    first["fork"] = {"of": of, "from": path, "records": len(places) + 1}
    clock = "".join(f"{codec.encode(entry).decode()}," for entry in records[0].get("clock", ()) if entry[0] <= after)
    text = codec.encode(first, what="first record of the fork").decode()
    return f'{text[:-1]},"clock":[{clock}[{after},"'.encode(), places


class Inherited:
    """What an execution of a fork knows of the records that it took over: ``records`` is the whole journal."""

    def __init__(self, records: Sequence[Mapping[str, Any]]) -> None:
        first = records[0]
        past = records[1 : first["fork"]["records"]]
        self._commands = {record["path"] for record in past if record["what"] in COMMANDS}
        self._answered = {record["of"] for record in past if "of" in record}
        self._clock = [(after, datetime.fromisoformat(at).timestamp()) for after, at in first["clock"]]
        self._reissued = any(record["what"] == "reissued" for record in records)
        self._open: dict[str, Effect] = {}

    def clock(self, consumed: int, now: float) -> float:
        """The time after ``consumed`` notifications; where it leaps to that of the fork, open timers keep what was left."""
        for after, at in self._clock:
            if after == consumed and at > now:
                left = int((at - now) * 1000)
                for path, effect in self._open.items():
                    if effect.verb == "timer":
                        self._open[path] = replace(effect, args=(effect.args[0] + left,))
                now = at
        return now

    def given(self, path: str, effect: Effect | None) -> None:
        """The workflow has come to a command that is on record."""
        if (
            path in self._commands
            and path not in self._answered
            and effect is not None
            and effect.verb not in _DONE_AT_ONCE
        ):
            self._open[path] = effect

    def closed(self, path: str) -> bool:
        """A command was answered or taken back; True when it was one of the run before, which goes on without us."""
        return self._open.pop(path, None) is not None and not self._reissued

    def again(self) -> list[Effect] | None:
        """What is to be set in motion once more, or None when that is on record."""
        return None if self._reissued else list(self._open.values())

    def child(self, path: str, recorded: str, id: str) -> str:
        """The run that the command at ``path`` began: that of the run before, if it had ended."""
        return recorded if path in self._commands and path in self._answered else id

    def same_child(self, path: str, recorded: str, id: str, owner: str) -> bool:
        """Whether the recorded child of the run before is the one that is given now, by its name under its parent."""
        if path not in self._commands or not id.startswith(f"{owner}:"):
            return path in self._commands
        return recorded.endswith(id.removeprefix(owner))
