"""`run graph`: the flow of a run, drawn from its journal: as a tree, for mermaid and Graphviz, and for programs.

An arrow leads from what came in to what the workflow asked for then, so that the longest way down is the time that it took.
Steps that nothing follows are those that others were waited for with.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from streammesh.cli.output import clean
from streammesh.moments import duration
from streammesh.records import COMMANDS, is_told

if TYPE_CHECKING:
    from streammesh.steps import RunSteps, Step

__all__ = ["Node", "dot", "flow", "mermaid", "tree"]

_COLOURS = {
    "succeeded": "#d7f0d7", "fired": "#d7f0d7", "received": "#dfe8f7", "failed": "#f7d7d7", "dead": "#f7d7d7", "dropped": "#eeeeee",
    "cancelled": "#eeeeee",
}  # fmt: skip
_OPEN = "#fff3cd"


@dataclass(frozen=True, slots=True)
class Node:
    """A step under its ``key`` (its path; for a signal or cancellation a made one); ``after`` is the key that it followed, or ''."""

    key: str
    after: str
    step: Step

    @property
    def label(self) -> str:
        """What it is, in two parts for two lines: name, and how it went."""
        step = self.step
        name = step.path or f"{step.what} {step.name}".strip()
        told = [step.state]
        if step.seconds is not None:
            told.append(duration(step.seconds))
        if step.attempt > 1:
            told.append(f"{step.attempt} attempts")
        if step.agent:
            told.append(step.agent)
        if step.what == "child":
            told.append(f"run {step.id}")
        if step.error:
            told.append(step.error if len(step.error) < 60 else step.error[:59] + "…")
        return clean(f"{name}\n{' · '.join(told)}", lines=True)


def flow(seen: RunSteps) -> list[Node]:
    """The steps of a run, each with the one that it followed, in the order of the journal."""
    came = [""]
    given: dict[str, int] = {}
    for record in seen.records[1:]:
        if is_told(record):
            came.append(record.get("of") or record.get("path") or f"{record['what']} {len(came)}")
        if record["what"] in COMMANDS:
            given.setdefault(record["path"], record["after"])
    outside = iter([key for key in came if key.startswith(("signal ", "cancel "))])
    nodes = []
    for step in seen.steps:
        if step.path:
            after = given.get(step.path, 0)
            nodes.append(Node(step.path, came[after] if after < len(came) else "", step))
        elif step.what in ("signal", "cancel"):
            nodes.append(Node(next(outside), "", step))
    return nodes


def tree(title: str, nodes: Sequence[Node]) -> Iterator[str]:
    """Lines of text: what followed on something stands under it, further in where there are several, after ↓ where there is one."""
    below: dict[str, list[Node]] = {}
    for node in nodes:
        below.setdefault(node.after, []).append(node)

    def marked(some: Sequence[Node], indent: str) -> list[tuple[Node, str, str]]:
        marks = ["↓  "] if len(some) == 1 else ["├─ "] * (len(some) - 1) + ["└─ "]
        return [(node, indent, mark) for node, mark in zip(some, marks, strict=True)][::-1]

    yield title
    # No recursion, and no further in for one after another: a run may be a thousand steps in a row.
    stack = marked(below.get("", []), "") if "" in below else []
    while stack:
        node, indent, mark = stack.pop()
        yield indent + mark + node.label.replace("\n", "  ")
        follow = below.get(node.key, [])
        if follow:
            stack += marked(follow, indent + {"├─ ": "│  ", "└─ ": "   ", "↓  ": ""}[mark])


def mermaid(title: str, nodes: Sequence[Node]) -> Iterator[str]:
    """A flowchart for mermaid, such as a Markdown block takes."""

    def text(label: str) -> str:
        for sign, code in (("#", "#35;"), ('"', "#quot;"), ("<", "#lt;"), (">", "#gt;")):
            label = label.replace(sign, code)
        return label.replace("\n", "<br>")

    numbers = {"": "n0", **{node.key: f"n{number}" for number, node in enumerate(nodes, 1)}}
    yield "flowchart TD"
    yield f'  n0(["{text(title)}"])'
    for node in nodes:
        yield f'  {numbers[node.key]}["{text(node.label)}"]'
        yield f"  style {numbers[node.key]} fill:{_COLOURS.get(node.step.state, _OPEN)}"
        if node.after or node.step.path:
            yield f"  {numbers.get(node.after, 'n0')} --> {numbers[node.key]}"


def dot(title: str, nodes: Sequence[Node]) -> Iterator[str]:
    """A digraph for Graphviz."""

    def text(label: str) -> str:
        return '"' + label.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n") + '"'

    numbers = {"": "n0", **{node.key: f"n{number}" for number, node in enumerate(nodes, 1)}}
    yield "digraph run {"
    yield '  node [shape=box, style="rounded,filled", fillcolor=white, fontname=sans]'
    yield f"  n0 [label={text(title)}, shape=oval]"
    for node in nodes:
        colour = _COLOURS.get(node.step.state, _OPEN)
        yield f'  {numbers[node.key]} [label={text(node.label)}, fillcolor="{colour}"]'
        if node.after or node.step.path:
            yield f"  {numbers.get(node.after, 'n0')} -> {numbers[node.key]}"
    yield "}"
