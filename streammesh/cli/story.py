"""How a run looks: its steps as a tree, its journal as lines, its head for programs."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from streammesh.cli.output import Output, clean
from streammesh.moments import duration, iso

if TYPE_CHECKING:
    from streammesh.journal import Head
    from streammesh.runcauses import RunCause
    from streammesh.steps import RunSteps, Step

__all__ = ["head_json", "record_row", "show_run", "step_json"]

HEADS = ("STEP", "WHAT", "STATE", "TOOK", "AGENT", "ATTEMPT", "")
#: Characters of a value that are shown where it is one of many.
BRIEF = 60
_NUMBERS = ("attempt", "version", "committed_at", "generation", "deaths")
_HIDDEN = ("client", "commit", "committed_at", "entry", "skipped", "waiters")


def head_json(head: Head) -> dict[str, Any]:
    """The head for programs: numbers as numbers, JSON decoded, without what only the engine needs."""
    value: dict[str, Any] = {"id": head.id, "state": head.state, "workflow": head.workflow}
    for name, text in head.fields.items():
        if name in ("state", "capability", *_HIDDEN) or name.startswith(("open ", "signal ")):
            continue
        if name in _NUMBERS and text.isdigit():
            value[name] = int(text)
        elif name in ("result", "status", "waits"):
            value[name] = json.loads(text)
        else:
            value[name] = text
    return value


def run_json(seen: RunSteps, cause: RunCause, limit: int, whys: Mapping[str, str]) -> dict[str, Any]:
    """The whole run for programs."""
    steps = [step_json(step) for step in seen.steps[-limit:]]
    return {
        **head_json(seen.head),
        "input": seen.input,
        "steps": [{**step, "why": whys[step["path"]]} if step.get("path") in whys else step for step in steps],
        "waits": [{"kind": wait.kind, "name": wait.name, "path": wait.path, "id": wait.id,
                   "since": wait.since and iso(wait.since), "due": wait.due and iso(wait.due)} for wait in seen.waits],
        "cause": cause.word,
        "text": cause.text,
    }  # fmt: skip


def show_run(out: Output, seen: RunSteps, cause: RunCause, now: int, limit: int, whys: Mapping[str, str]) -> None:
    """The whole run for people: head, steps, and why it is where it is. ``whys``: path -> what an open task waits for."""
    steps = seen.steps[-limit:]
    if out.quiet:
        out.line(seen.head.state)
        return
    head = seen.head.fields
    said = {name: json.loads(head[name]) for name in ("status", "result") if name in head}
    shown = (
        [("status", said["status"]), ("result", said.get("result"))]
        if "status" in said
        else [("result", said.get("result"))]
    )
    out.pairs(
        [
            ("run", seen.head.id),
            ("state", seen.head.state),
            (
                "workflow",
                seen.head.workflow + (f" version {head['version']}" if head.get("version", "1") != "1" else ""),
            ),
            ("input", out.value(seen.input)),
            ("agent", head.get("agent")),
            ("activation", head.get("attempt")),
            ("generation", head.get("generation")),
            ("parent", head.get("parent")),
            ("forked_of", head.get("forked_of") and f"{head['forked_of']} from {head.get('forked_from', '?')}"),
            ("started_at", out.moment(head.get("started_at"), now)),
            ("finished_at", out.moment(head.get("finished_at"), now)),
            *((name, out.value(value)) for name, value in shown if value is not None),
            ("error", head.get("error")),
        ]
    )
    if steps:
        out.line()
        out.table(HEADS, [_step_row(out, step, now, whys) for step in steps], right=["TOOK", "ATTEMPT"])
    if len(steps) < len(seen.steps):
        out.note(f"the newest {limit} of {len(seen.steps)} steps; --limit shows more")
    out.line()
    out.line(f"{out.state(cause.state)}: {clean(cause.text)}")


def _step_row(out: Output, step: Step, now: int, whys: Mapping[str, str]) -> tuple[str, ...]:
    place = "   " * (step.depth - 1) + "└─ " if step.depth else ""
    took = duration(step.seconds) if step.seconds is not None else "-"
    about = step.error or ("" if step.value is None else _brief(step.value))
    if step.state in ("queued", "delayed", "running", "waiting", "parked", "begun") and step.began is not None:
        about = (
            f"since {duration((now - step.began) / 1000)}" if step.due is None else f"due {out.moment(step.due, now)}"
        )
    if step.path in whys:
        about = f"{about}: {whys[step.path]}"
    if step.what == "child":
        about = " ".join(filter(None, [f"run {step.id}", about]))
    what = step.what if step.what in (step.name, "cancel") else f"{step.what} {step.name}"
    return (
        place + (step.path or "·"), what if step.what != "cancel" else f"cancel {step.name}", step.state, took,
        step.agent or "-", str(step.attempt or "-"), about,
    )  # fmt: skip


def step_json(step: Step) -> dict[str, Any]:
    """A step for programs, without what is empty."""
    value = {
        "what": step.what, "name": step.name, "path": step.path, "state": step.state, "id": step.id, "agent": step.agent,
        "attempt": step.attempt, "error": step.error, "began": step.began and iso(step.began),
        "ended": step.ended and iso(step.ended), "due": step.due and iso(step.due),
        "seconds": step.seconds if step.seconds is None else round(step.seconds, 3),
    }  # fmt: skip
    kept = {name: one for name, one in value.items() if one not in ("", 0, None)}
    return {**kept, "value": step.value}


def record_row(out: Output, record: Mapping[str, Any]) -> tuple[str, str, str]:
    """A record of the journal in words: when, what, and about what."""
    what = str(record.get("what", "?"))
    match what:
        case "start":
            about = f"{record['workflow']} version {record['version']} {_brief(record['input'])}"
            if "fork" in record:
                about += f" forked of {record['fork']['of']} from {record['fork']['from']}"
        case "call":
            sent = record["payload"] if "payload" in record else f"{record.get('bytes', '?')} bytes"
            about = f"{record['name']} at {record['path']} with {_brief(sent)}"
        case "timer":
            about = f"{record['path']} due {out.moment(record['due'])}"
        case "child":
            about = f"{record['name']} at {record['path']} as run {record['run']}"
        case "step":
            ended = f"failed: {record['error']}" if "error" in record else f"= {_brief(record.get('result'))}"
            about = f"{record['name']} at {record['path']} {ended}"
        case "begin" | "patched":
            about = f"{record['name']} at {record['path']}"
        case "done":
            about = f"{record['of']} = {_brief(record['result'])}" + (f" by {record['by']}" if "by" in record else "")
        case "reissued":
            about = f"{' '.join(record['paths']) or 'nothing was open'}"
        case "failed":
            about = f"{record['of']} {record['state']}: {record['error']}"
        case "fired":
            about = str(record["of"])
        case "signal":
            about = f"{record['name']} {_brief(record['payload'])}"
        case "cancel":
            about = f"by {record['by']}"
        case "end":
            about = f"{record['state']} " + (
                _brief(record["result"]) if "result" in record else str(record.get("error", ""))
            )
        case _:
            about = _brief({name: value for name, value in record.items() if name not in ("what", "at")})
    return out.moment(record.get("at")), what, about


def _brief(value: Any) -> str:
    text = json.dumps(value, ensure_ascii=False)
    return text if len(text) <= BRIEF else text[: BRIEF - 1] + "…"
