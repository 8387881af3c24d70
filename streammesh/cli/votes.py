"""`vote`: put a question to the agents, look at votes, cast a ballot by hand, count again, cancel."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import click

from streammesh.cli.endings import Ended
from streammesh.cli.output import Output, clean
from streammesh.cli.parameters import DURATION, read_text
from streammesh.cli.session import Noun, command

if TYPE_CHECKING:
    from streammesh.mesh import Mesh
    from streammesh.motions import Decision
    from streammesh.votes import VoteRecord

__all__ = ["vote_command"]

METHODS = ("plurality", "majority", "weighted", "supermajority", "unanimity", "approval", "ranked")


@click.group("vote", cls=Noun)
def vote_command() -> None:
    """Votes of agents: a fixed electorate, a quorum, a deadline, and one decision that any agent may close."""


@command(
    vote_command,
    name="open",
    unsafe=False,
    epilog="Example: streammesh vote open 'Which summary?' first second --topic taste --quorum 3",
)
@click.argument("question")
@click.argument("options", metavar="OPTION OPTION...", nargs=-1, required=True)
@click.option("--topic", default="default", show_default=True, metavar="TOPIC", help="Who votes on this is asked.")
@click.option(
    "--voter", "voters", multiple=True, metavar="AGENT[=WEIGHT]", help="Ask this agent (id or name); may be repeated."
)
@click.option("--capability", metavar="NAME", help="Ask all agents that offer this capability.")
@click.option(
    "--method", type=click.Choice(METHODS), default="majority", show_default=True, help="How ballots are counted."
)
@click.option(
    "--threshold", type=float, metavar="SHARE", help="With supermajority: the share that is needed (default 2/3)."
)
@click.option(
    "--basis", type=click.Choice(["cast", "electorate"]), default="cast", show_default=True, help="A share of what."
)
@click.option("--quorum", type=int, metavar="N", help="Voters that must take part (default more than half).")
@click.option("--deadline", type=DURATION, default=30.0, metavar="DURATION", help="It is closed by then (default 30s).")
@click.option(
    "--tie",
    default="no_decision",
    metavar="POLICY",
    help="no_decision, priority, hash, runoff, status_quo:OPTION, chair:AGENT.",
)
@click.option("--veto", is_flag=True, help="A voter may put an option out.")
@click.option(
    "--change",
    type=click.Choice(["first", "last"]),
    default="first",
    help="Which ballot of a voter counts (default first).",
)
@click.option("-p", "--payload", metavar="JSON|@FILE|-", help="What the voters are to judge.")
@click.option("--id", metavar="ID", help="Its id; the same vote again is attached to.")
@click.option("--no-wait", is_flag=True, help="Print its id at once rather than the decision.")
async def open_(
    mesh: Mesh, out: Output, question: str, options: tuple[str, ...], topic: str, voters: tuple[str, ...],
    capability: str | None, payload: str | None, id: str | None, no_wait: bool, **rules: Any,
) -> int:  # fmt: skip
    """Put QUESTION to the vote; prints the decision. Exits 1 when there is none."""
    from streammesh import codec
    from streammesh.motions import Motion

    if voters and capability:
        raise click.UsageError("--voter and --capability are both given; give one")
    value = None
    if payload is not None:
        value = codec.decode(read_text(payload, "payload") if payload == "-" or payload.startswith("@") else payload)
    motion = Motion.make(question, options, topic=topic, payload=value, **rules)
    chosen = _weights(voters)
    electorate = await mesh.votes.electorate(chosen or capability, topic=topic)
    id = await mesh.votes.open(motion, electorate, id=id, weighted=isinstance(chosen, dict))
    if no_wait:
        out.object({"id": id, "voters": electorate}) if out.json else out.line(id)
        return 0
    return _tell(out, await mesh.votes.decision(id))


def _weights(voters: Sequence[str]) -> list[str] | dict[str, int] | None:
    """AGENT, or AGENT=WEIGHT; one with a weight gives the others the weight 1."""
    if not any("=" in one for one in voters):
        return list(voters) or None
    weights: dict[str, int] = {}
    for one in voters:
        name, _, weight = one.partition("=")
        if weight and not weight.isdigit():
            raise click.UsageError(f"--voter {one!r}: the weight is no whole number")
        if name in weights:
            raise click.UsageError(f"--voter {name!r} is there twice; each votes once")
        weights[name] = int(weight or 1)
    return weights


def _tell(out: Output, decision: Decision) -> int:
    if out.json:
        out.object(_json(decision))
    elif out.quiet:
        out.line(decision.winner or "")
    else:
        _pairs(out, decision)
    return 0 if decision.decided else 1


def _json(decision: Decision) -> dict[str, Any]:
    return {**dataclasses.asdict(decision), "turnout": decision.turnout, "confidence": decision.confidence}


def _pairs(out: Output, decision: Decision) -> None:
    tally = ", ".join(f"{option} {'out' if weight is None else weight}" for option, weight in decision.tally.items())
    out.pairs([
        ("id", decision.id), ("outcome", decision.outcome), ("winner", decision.winner), ("reason", decision.reason),
        ("support", f"{decision.support} of {decision.basis}, {decision.confidence:.0%} agree"), ("tally", tally),
        ("turnout", f"{decision.ballots} of {decision.voters} voters"), ("silent", " ".join(decision.silent)),
        ("dead", " ".join(decision.dead)), ("invalid", "\n".join(f"{agent}: {why}" for agent, why in decision.invalid.items())),
        ("closed by", decision.closed_by),
    ])  # fmt: skip


@command(vote_command)
@click.option(
    "--limit", type=click.IntRange(1, 1000), default=50, show_default=True, help="At most so many, the newest."
)
async def ls(mesh: Mesh, out: Output, limit: int) -> None:
    """List votes and collections of answers, newest first; closed ones are kept for a day."""
    from streammesh import codec

    listed = await mesh.votes.listed(limit)
    rows = []
    for id, fields in listed:
        result = codec.decode(fields["result"], what="decision", limit=64 * 1024 * 1024) if "result" in fields else {}
        about = result.get("winner") or result.get("reason") or ""
        heads = len(fields["electorate"].split()) // 2
        rows.append((id, fields["state"], fields["method"], str(heads), fields["opened_at"], about, fields["question"]))
    if out.json:
        names = ("id", "state", "method", "voters", "opened_at", "about", "question")
        out.lines(dict(zip(names, row, strict=True)) for row in rows)
    elif out.quiet:
        for id, _ in listed:
            out.line(id)
    elif rows:
        now = await mesh.status.now_ms()
        shown = [(*row[:4], out.moment(row[4], now), *row[5:]) for row in rows]
        out.table(("VOTE", "STATE", "METHOD", "VOTERS", "OPENED", "OUTCOME", "QUESTION"), shown, right=["VOTERS"])
    else:
        out.note("no votes; open one: streammesh vote open QUESTION OPTION OPTION")


@command(vote_command)
@click.argument("id")
async def show(mesh: Mesh, out: Output, id: str) -> None:
    """A vote with its ballots, and its decision when there is one."""
    record = await mesh.votes.record(id)
    if out.json:
        decision = record.decision
        out.object({
            "id": id, "state": record.state, "question": record.fields["question"], "method": record.method, "options": record.options,
            "quorum": int(record.fields["quorum"]), "electorate": dict(record.electorate), "ballots": dict(record.ballots),
            "decision": decision and _json(decision), "audit": record.audit,
        })  # fmt: skip
        return
    now = await mesh.status.now_ms()
    fields = record.fields
    out.pairs([
        ("question", fields["question"]), ("options", ", ".join(record.options)), ("state", record.state), ("method", record.method),
        ("quorum", f"{fields['quorum']} of {len(record.electorate)} voters"), ("opened", out.moment(fields["opened_at"], now)),
        ("deadline", out.moment(fields["deadline"], now)), ("refused", fields.get("refused", "")),
    ])  # fmt: skip
    if record.decision:
        out.line()
        _pairs(out, record.decision)
    out.line()
    out.table(("VOTER", "WEIGHT", "BALLOT"), _ballots(record), right=["WEIGHT"])


def _ballots(record: VoteRecord) -> list[tuple[str, str, str]]:
    return [
        (agent, str(weight), clean(record.shown(record.ballots[agent])) if agent in record.ballots else "-")
        for agent, weight in record.electorate
    ]


@command(vote_command, unsafe=False, epilog="Example: streammesh vote cast v-17 second first --as critic.4")
@click.argument("id")
@click.argument("choice", nargs=-1)
@click.option("--as", "agent", required=True, metavar="AGENT", help="For which voter; its id, as `vote show` lists it.")
@click.option("--abstain", is_flag=True, help="Take part, and choose nothing.")
@click.option("--veto", is_flag=True, help="Put the option out.")
async def cast(
    mesh: Mesh, out: Output, id: str, choice: tuple[str, ...], agent: str, abstain: bool, veto: bool
) -> None:
    """Cast a ballot for a voter: an option; several, in order, for approval and ranked."""
    from streammesh.motions import Veto

    if abstain == bool(choice) or (veto and len(choice) != 1):
        raise click.UsageError("expected one CHOICE (several for approval and ranked), or --abstain")
    given: Any = None if abstain else Veto(choice[0]) if veto else choice[0] if len(choice) == 1 else list(choice)
    receipt = await mesh.votes.choose(id, agent, given)
    if receipt.word == "invalid":
        raise click.UsageError(f"vote {id} has no such ballot; see: streammesh vote show {id}")
    out.object({"id": id, "agent": agent, "verdict": receipt.word, "state": receipt.state}) if out.json else out.line(
        receipt.state
    )


@command(vote_command)
@click.argument("id")
async def close(mesh: Mesh, out: Output, id: str) -> int:
    """Close a vote if its time has come, and print its decision (exit 5 while it is open)."""
    from streammesh.errors import VoteError

    state, _, left = await mesh.votes.close(id, by="cli")
    record = await mesh.votes.record(id)
    if state == "open":
        raise Ended(f"vote {id} is open for another {left:.1f} s; to end it now: streammesh vote cancel {id}", 5)
    if record.decision is None:
        raise VoteError(f"{id} is a collection of answers, it is {state}")
    return _tell(out, record.decision)


@command(vote_command)
@click.argument("id")
async def recount(mesh: Mesh, out: Output, id: str) -> int:
    """Count a closed vote again from its audit; exits 1 when the record says something else."""
    counted = await mesh.votes.recount(id)
    if out.json:
        said = {"outcome": counted.outcome, "winner": counted.winner, "support": counted.support}
        out.object({"id": id, "agrees": counted.agrees, "recount": said, "record": _json(counted.record)})
    else:
        verdict = (
            "the record agrees"
            if counted.agrees
            else f"the record says {counted.record.outcome}, {counted.record.winner}"
        )
        out.line(f"{counted.outcome}, {counted.winner or 'no winner'}, support {counted.support}: {verdict}")
    return 0 if counted.agrees else 1


@command(vote_command)
@click.argument("id")
@click.option("--by", default="cli", metavar="WHO", help="Who asks; the decision names it.")
async def cancel(mesh: Mesh, out: Output, id: str, by: str) -> int:
    """Close an open vote without a decision."""
    state = await mesh.votes.cancel(id, by=by)
    out.object({"id": id, "state": state}) if out.json else out.line(state)
    if state != "cancelled":
        out.note(f"vote {id} was closed before: {state}")
    return 0 if state == "cancelled" else 6
