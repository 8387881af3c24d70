"""A world for one run without a server: a dict and a list play Redis, a seed decides what happens next.

It says what `run_commit`, `run_deliver` and the firing of timers say, one run at a time: records are appended, an open
command is answered once, a commit may find that something was told meanwhile.
"""

from __future__ import annotations

import json
import random
from datetime import UTC, datetime
from typing import Any

from streammesh import codec
from streammesh.execution import Execution
from streammesh.forks import opening
from streammesh.keys import Keys
from streammesh.records import COMMANDS, is_told
from streammesh.workflow import Run
from tests.runs.shapes import Function, Shape

BEGAN = datetime(2026, 1, 1, tzinfo=UTC).timestamp()


def execute(function: Function, journal: list[dict[str, Any]], id: str = "r1") -> Execution:
    """A new execution that has read the journal."""
    execution = Execution(id, lambda execution, input: function(Run(execution, Keys("t")), **input))
    execution.load([json.dumps(record) for record in journal])
    return execution


def commands(journal: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return [record for record in journal if record["what"] in COMMANDS]


def notifications(journal: list[dict[str, Any]]) -> int:
    return len([record for record in journal[1:] if is_told(record)])


def replayed(function: Function, journal: list[dict[str, Any]], id: str = "r1") -> tuple[list[Any], list[Any], Any]:
    """What a replay asks for anew: records and steps to start; and how it ended, if it did."""
    execution = execute(function, journal, id)
    ending = execution.ending() if execution.done else None
    asked = [dict(record) for record in execution.records], [start.path for start in execution.starts], ending
    execution.close()
    return asked


class World:
    """One run of a shape. ``crash`` is the chance, at each turn, that the execution is lost and begun anew."""

    def __init__(self, shape: Shape, seed: int | str = 0, *, crash: float = 0.0, ordered: bool = False) -> None:
        self.shape = shape
        self.chance = random.Random(f"{shape.name}/{seed}")
        self.crash = crash
        self.ordered = ordered
        self.now = BEGAN
        start = {"what": "start", "workflow": shape.name, "version": 1, "input": {}, "at": self.at()}
        self.journal: list[dict[str, Any]] = [start]
        self.journal += [{"what": "signal", "name": name, "payload": value} for name, value in shape.first]
        #: Open commands: path -> (kind, what the notification will say).
        self.open: dict[str, tuple[str, dict[str, Any]]] = {}
        self.outside = [
            {"what": "signal", "name": name, "payload": value} for name, value in shape.signals
        ]  # yet to come, in their order
        if shape.cancel:
            self.outside.append({"what": "cancel", "by": "tests"})
        self.id = "r1"
        self.generations: list[list[dict[str, Any]]] = []
        self.ids: list[str] = []
        self.ran: list[str] = []
        self.end: tuple[str, Any] | None = None

    def at(self) -> str:
        return datetime.fromtimestamp(self.now, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")

    def continued(self, journal: list[dict[str, Any]]) -> World:
        """Take over a journal in the middle: what it leaves open is open, what it does not have is yet to come."""
        self.journal = list(journal)
        for record in journal:
            match record["what"]:
                case "call" | "child" | "timer":
                    self._opens(record)
                case "done" | "failed" | "fired":
                    self.open.pop(record["of"], None)
                case "signal" | "cancel":
                    bare = {name: value for name, value in record.items() if name != "at"}
                    if bare in self.outside:
                        self.outside.remove(bare)
            if "at" in record:
                self.now = max(self.now, datetime.fromisoformat(record["at"]).timestamp())
        return self

    def forked(self, journal: list[dict[str, Any]], path: str) -> World:
        """Be a fork of the run with that journal, made a day later; what came from outside after its place comes again."""
        first, places = opening(journal, "r1", path)
        self.id = "f1"
        self.now = datetime.fromisoformat(max(record.get("at", "") for record in journal)).timestamp() + 86_400
        self.journal = [json.loads(f'{first.decode()}{self.at()}"]]}}'), *(journal[place] for place in places)]
        for record in self.journal:
            bare = {name: value for name, value in record.items() if name != "at"}
            if bare in self.outside:
                self.outside.remove(bare)
        return self

    def run(self) -> tuple[str, Any]:
        execution = execute(self.shape.function, self.journal, self.id)
        told = True
        for _ in range(2_000):
            self._settle(execution)
            if self.end is not None:
                return self.end
            if self._restart or (told and self.chance.random() < self.crash):
                self._restart = told = False
                execution.close()
                execution = execute(self.shape.function, self.journal, self.id)
                continue
            record = self._next()
            assert record is not None, "nothing is left to happen, and it waits"
            self.journal.append(record)
            execution.tell([json.dumps(record)])
            told = True
        raise AssertionError("it does not end")

    _restart = False

    def _settle(self, execution: Execution) -> None:
        """Run local steps and commit until nothing is new."""
        while execution.starts or execution.records or execution.effects or execution.done:
            starts, execution.starts = execution.starts, []
            for start in starts:
                self.ran.append(start.path)
                try:
                    execution.step_done(start, result=start.function(*start.args, **start.kwargs), at=self.at())
                except Exception as error:
                    execution.step_done(start, error=str(error), at=self.at())
            meanwhile = self._next() if not self.ordered and self.chance.random() < 0.3 else None
            if execution.done:
                if meanwhile:
                    self.journal.append(meanwhile)
                    execution.tell([json.dumps(meanwhile)])
                self._finish(execution)
                return
            if starts and self.crash and self.chance.random() < self.crash:
                self._restart = True
                return
            records, execution.records = execution.records, []
            effects, execution.effects = execution.effects, []
            if meanwhile:
                self.journal.append(meanwhile)
            self.journal += records
            for effect in effects:
                self._effect(effect.verb, effect.path, effect.args)
            if meanwhile:
                execution.tell([json.dumps(meanwhile)])
            execution.committed(records)

    def _finish(self, execution: Execution) -> None:
        state, value = execution.ending()
        if state == "again":
            for effect in execution.effects:
                self._effect(effect.verb, effect.path, effect.args)
            self.generations.append(self.journal)
            self.journal = [execution.begin_again(value, self.at())]
            self.journal += [{"what": "signal", "name": n, "payload": p} for n, p in execution.unread()]
            self.open.clear()
            self._restart = True
            return
        self.journal += execution.records
        self.journal.append({"what": "end", "state": state, "at": self.at()})
        self.end = state, codec.decode(value) if state == "succeeded" else value

    def _effect(self, verb: str, path: str, args: tuple[Any, ...]) -> None:
        match verb:
            case "task":
                assert args[2] not in self.ids, f"a task with the id {args[2]} was there before"
                self.ids.append(args[2])
                self._opens({"what": "call", "path": path, "name": args[1], "payload": codec.decode(args[3])})
            case "child":
                assert args[0] not in self.ids, f"a run with the id {args[0]} was there before"
                self.ids.append(args[0])
                self._opens({"what": "child", "path": path, "run": args[0]})
            case "timer":
                self._opens({"what": "timer", "path": path, "due": args[0]})
            case "drop":
                self.open.pop(path, None)

    def _opens(self, record: dict[str, Any]) -> None:
        path = record["path"]
        assert path not in self.open
        match record["what"], record.get("name"):
            case "timer", _:
                told = {"what": "fired", "of": path, "due": record["due"]}
            case "call", "refuse":
                told = {"what": "failed", "of": path, "state": "failed", "error": "no"}
            case "call", "lose":
                told = {"what": "failed", "of": path, "state": "dead", "error": "lost"}
            case "call", _:
                told = {"what": "done", "of": path, "result": record["payload"].get("v")}
            case _:
                told = {"what": "done", "of": path, "result": record["run"]}
        self.open[path] = record["what"], told

    def _next(self) -> dict[str, Any] | None:
        """What happens next: an answer, a timer, a signal. Timers fire in the order of their times."""
        timers = [path for path, (kind, _) in self.open.items() if kind == "timer"]
        answers = [path for path, (kind, _) in self.open.items() if kind != "timer"]
        kinds = ["answer"] * (2 * bool(answers)) + ["timer"] * bool(timers) + ["outside"] * bool(self.outside)
        if not kinds:
            return None
        kind = kinds[0] if self.ordered else self.chance.choice(kinds)
        self.now += 0.001
        if kind == "outside":
            return dict(self.outside.pop(0))
        if kind == "timer":
            path = min(timers, key=lambda path: self.open[path][1]["due"])
            told = dict(self.open.pop(path)[1])
            self.now = max(self.now, told.pop("due") / 1000)
        else:
            path = answers[0] if self.ordered else self.chance.choice(answers)
            told = dict(self.open.pop(path)[1])
        return {**told, "at": self.at()}
