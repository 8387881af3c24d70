"""Recorded journals against the code of now, without a server: does a run that is under way still fit a changed workflow?

Nothing is executed but the workflow's own coroutine: steps, tasks, timers and children answer from the journal, and what
the code would ask for beyond it is only said.
"""

from __future__ import annotations

import json
from collections.abc import Coroutine, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

from streammesh import codec
from streammesh.errors import InvalidPayload, NonDeterminism
from streammesh.execution import Execution
from streammesh.keys import Keys
from streammesh.workflow import Run, Workflow

__all__ = ["Replay", "journal_of", "read", "replay", "replay_every_prefix"]

#: The id that a run has here where nobody says another, and no child's name tells it.
NOBODY = "replayed"


@dataclass(frozen=True, slots=True)
class Replay:
    """A journal that fits: so many ``records``; how the code ``ended`` ('' where it goes on), and the paths of what it ``asks`` for.

    ``remark`` says where it ended otherwise than the journal does, which harms no run: they have ended.
    """

    records: int
    ended: str
    asks: tuple[str, ...]
    remark: str


def journal_of(text: str) -> list[dict[str, Any]]:
    """A journal from JSON lines, or from one JSON array. Raises InvalidPayload, which says in which line."""
    if text.lstrip().startswith("["):
        records = codec.decode(text, what="journal", limit=1 << 30)
    else:
        lines = [(number, line) for number, line in enumerate(text.splitlines(), 1) if line.strip()]
        records = [codec.decode(line, what=f"line {number} of the journal", limit=1 << 26) for number, line in lines]
    return _checked(records)


def _checked(records: Any) -> list[dict[str, Any]]:
    fits = isinstance(records, list) and all(isinstance(record, dict) and "what" in record for record in records)
    if not fits or not records or records[0]["what"] != "start":
        raise InvalidPayload("this is no journal: expected records with `what`, the first of them `start`")
    found: list[dict[str, Any]] = records
    return found


def replay(workflow: Workflow, records: Sequence[Mapping[str, Any]], *, id: str | None = None) -> Replay:
    """Run ``workflow`` through a journal. Raises NonDeterminism when they do not fit: expected, got, path, file and line.

    ``id`` is the run's: chance and names of children are made from it.
    """
    journal = _checked(list(records))
    keys = Keys("replay")

    def begin(execution: Execution, input: dict[str, Any]) -> Coroutine[Any, Any, Any]:
        return cast("Coroutine[Any, Any, Any]", workflow.function(Run(execution, keys, _nobody, _nobody), **input))

    execution = Execution(id or _id(journal), begin)
    try:
        execution.load([json.dumps(record) for record in journal])
        ended, remark = "", ""
        if execution.done:
            ended, value = execution.ending()
            remark = _remark(journal[-1], ended, value)
        asks = [record["path"] for record in execution.records if "path" in record]
        asks += [start.path for start in execution.starts if start.path not in asks]
        return Replay(len(journal), ended, tuple(asks), remark)
    finally:
        execution.close()


def replay_every_prefix(workflow: Workflow, records: Sequence[Mapping[str, Any]], *, id: str | None = None) -> Replay:
    """The same for every state that the run went through; what a prefix asks for has to be what came next.

    Raises NonDeterminism, which says how many records there were.
    """
    journal = list(records)
    whole = replay(workflow, journal, id=id)
    id = id or _id(journal)
    given = {record["path"] for record in journal if "path" in record}
    for length in range(journal[0].get("fork", {}).get("records", 1), len(journal)):
        try:
            some = replay(workflow, journal[:length], id=id)
        except NonDeterminism as error:
            raise NonDeterminism(f"with the first {length} records only: {error}") from None
        more = [path for path in some.asks if path not in given]
        if more and journal[-1]["what"] == "end":
            raise NonDeterminism(
                f"with the first {length} records only the code asks for {', '.join(more)}, and never does with all"
            )
    return whole


async def _nobody(*args: Any, **about: Any) -> Any:
    """Stands for the other agents: the steps that would ask them are not run in a replay."""
    raise AssertionError("no step runs in a replay")


def _id(journal: Sequence[Mapping[str, Any]]) -> str:
    """The run's id, where the name of a child tells it: the id, and the path of the command."""
    for record in journal:
        if record["what"] == "child" and record["run"].endswith(f":{record['path']}"):
            id: str = record["run"].removesuffix(f":{record['path']}")
            generation = f":g{journal[0].get('generation', 0)}"
            return id.removesuffix(generation)
    return str(journal[0].get("seed", NOBODY))


def _remark(last: Mapping[str, Any], ended: str, value: Any) -> str:
    if last["what"] != "end":
        return ""
    if last["state"] != ended:
        return f"the journal ends as {last['state']}, the code as {ended}"
    got = codec.decode(value, what="result", limit=1 << 26) if ended == "succeeded" else value
    was = last.get("result") if ended == "succeeded" else last.get("error")
    return "" if got == was else f"the journal ends with {_brief(was)}, the code with {_brief(got)}"


def _brief(value: Any) -> str:
    text = json.dumps(value, ensure_ascii=False)
    return text if len(text) <= 80 else text[:79] + "…"


def read(path: str | Path) -> list[dict[str, Any]]:
    """A journal from a file of JSON lines. Raises OSError, InvalidPayload."""
    return journal_of(Path(path).read_text(encoding="utf-8"))
