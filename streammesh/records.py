"""What the records of a run's journal are: commands, notifications, and what is neither; and how they are said in words.

Commands are what the workflow asked for (``call timer child begin patched step vote collect``), notifications what it is told, one at a
time in the order of the journal (``done failed fired signal cancel step end``). ``start`` is the first record, and
``reissued`` is the engine's own: a fork has set in motion again what was open in the run that it came from.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from streammesh.errors import NoBids, StepFailed, TaskCancelled, TaskExpired

__all__ = ["COMMANDS", "error_of", "is_told", "named"]

COMMANDS = frozenset(("call", "auction", "timer", "child", "begin", "patched", "step", "vote", "collect"))
_SILENT = frozenset(("start", "reissued"))


def is_told(record: Mapping[str, Any]) -> bool:
    """Whether a record is a notification; the outcome of a local step is one, and a command."""
    what = record["what"]
    return what == "step" or (what not in COMMANDS and what not in _SILENT)


def named(record: Mapping[str, Any]) -> str:
    """A command in words."""
    return f"{record['what']} {record.get('name', '')!r}"


def error_of(record: Mapping[str, Any]) -> BaseException:
    """What a ``failed`` record raises where its command is awaited."""
    said = record.get("error") or record["state"]
    match record["state"]:
        case "cancelled":
            return TaskCancelled(said, id=record["of"])
        case "expired":
            return TaskExpired(said, id=record["of"])
        case "no_bids" | "all_refused":
            return NoBids(said, id=record["of"])
        case _:
            return StepFailed(said, path=record["of"])
