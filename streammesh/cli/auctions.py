"""`auction`: work for the best bidder, from a shell: open one, see who bid what and who won, cancel it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from streammesh.cli.endings import Ended, Missing, Refused
from streammesh.cli.output import Output, clean
from streammesh.cli.parameters import DURATION, payload_of
from streammesh.cli.session import Noun, command

if TYPE_CHECKING:
    from streammesh.auctions import Auction
    from streammesh.bids import AuctionRecord
    from streammesh.mesh import Mesh

__all__ = ["auction_command"]

HEADS = ("AUCTION", "STATE", "CAPABILITY", "BIDDERS", "WINNER", "OPENED", "")
BIDS = ("BIDDER", "ANSWER", "SCORE", "ETA", "COST", "QUALITY", "FREE", "")
FIELDS = "[name=text | name:=json | name=@file]..."


@click.group("auction", cls=Noun)
def auction_command() -> None:
    """Auctions: work that goes to the agent that bids best. Open them, look into them, cancel them."""


@command(
    auction_command,
    name="open",
    unsafe=False,
    epilog="Example: streammesh auction open summarize path=docs/long.md --weight eta=1 --weight quality=2 --wait",
)
@click.argument("capability")
@click.argument("fields", nargs=-1, metavar=FIELDS)
@click.option("-p", "--payload", metavar="JSON|@FILE|-", help="The payload, an object; fields are added to it.")
@click.option("--id", metavar="ID", help="Its id; opened twice with one id it is one auction.")
@click.option("--bidder", "bidders", multiple=True, metavar="AGENT", help="Ask only this one (id or name); repeatable.")
@click.option(
    "--window", type=DURATION, default="2s", metavar="DURATION", help="The longest wait for bids (default 2s)."
)
@click.option(
    "--confirm", type=DURATION, default="1s", metavar="DURATION", help="For a winner to confirm (default 1s)."
)
@click.option(
    "--weight", "weights", multiple=True, metavar="TERM=NUMBER",
    help="How heavy eta, cost, quality, free or history is; repeatable. The others count nothing then.",
)  # fmt: skip
@click.option("--min-score", type=float, metavar="NUMBER", help="Bids below it do not win.")
@click.option(
    "--fallback", type=click.Choice(["queue", "none"]), default="queue",
    help="When nobody takes it: the capability's queue (the default), or nothing (exit 1).",
)  # fmt: skip
@click.option("--deadline", type=DURATION, metavar="DURATION", help="The work expires after so long.")
@click.option("--wait", "waits", is_flag=True, help="Wait until the work is done and print its result.")
@click.option("--timeout", type=DURATION, metavar="DURATION", help="With --wait: at most so long (exit 5; it goes on).")
async def open_(
    mesh: Mesh, out: Output, capability: str, fields: tuple[str, ...], payload: str | None, id: str | None, bidders: tuple[str, ...],
    window: float, confirm: float, weights: tuple[str, ...], min_score: float | None, fallback: str, deadline: float | None,
    waits: bool, timeout: float | None,
) -> int:  # fmt: skip
    """Open an auction of a task of CAPABILITY; prints its id."""
    if timeout is not None and not waits:
        raise click.UsageError("--timeout is for --wait; add --wait, or leave it out")
    auction = await mesh.auction(
        capability, payload_of(payload, fields), id=id, bidders=bidders or None, window=window, confirm=confirm,
        score=dict(map(_weight, weights)) if weights else None, min_score=min_score, fallback=fallback, deadline=deadline,
    )  # fmt: skip
    if not auction.created:
        out.note("there is an auction of that id already, no second one was made")
    if waits:
        return await _outcome(out, auction, timeout)
    if out.json:
        out.object({"id": auction.id, "created": auction.created})
    else:
        out.line(auction.id)
    return 0


def _weight(said: str) -> tuple[str, float]:
    term, _, number = said.partition("=")
    try:
        return term, float(number)
    except ValueError:
        raise click.UsageError(f"--weight {said!r} is no weight; expected TERM=NUMBER, such as eta=1") from None


async def _outcome(out: Output, auction: Auction, timeout: float | None) -> int:
    from streammesh.errors import AuctionError, ResultTimeout

    try:
        result = await auction.result(timeout)
    except ResultTimeout:
        state = (await auction.record()).state
        if out.json:
            out.object({"id": auction.id, "state": state})
        raise Ended(f"auction {auction.id} is {state} after {timeout:g} s; it goes on", 5) from None
    except AuctionError as error:
        state = (await auction.record()).state
        if out.json:
            out.object({"id": auction.id, "state": state, "error": str(error)})
        click.echo(f"{auction.id} {out.state(state)}: {clean(str(error))}", err=True)
        return 1
    if out.json:
        out.object({"id": auction.id, "state": "done", "winner": (await auction.record()).winner, "result": result})
    else:
        out.line(out.value(result))
    return 0


@command(auction_command, name="ls")
@click.option("--limit", type=click.IntRange(1, 10_000), default=50, show_default=True, help="At most so many.")
async def ls(mesh: Mesh, out: Output, limit: int) -> None:
    """List the auctions that have not ended, oldest first."""
    records = await mesh.auctions.unfinished(limit)
    if out.json:
        out.lines(as_json(record) for record in records)
    elif out.quiet:
        for record in records:
            out.line(record.id)
    elif records:
        out.table(HEADS, [_row(record) for record in records], right=["BIDDERS"])
    else:
        out.note("no auction is open; an ended one is shown for an hour: streammesh auction show ID")


def _row(record: AuctionRecord) -> tuple[Any, ...]:
    opened = record.fields.get("opened_at", "")
    return record.id, record.state, record.capability, len(record.bidders), record.winner or "-", opened, record.reason


@command(auction_command)
@click.argument("id")
async def show(mesh: Mesh, out: Output, id: str) -> None:
    """One auction: its bids, best first, who won, and what happened."""
    record = await mesh.auctions.record(id)
    audit = await mesh.auctions.audit(id)
    if out.json:
        out.object(as_json(record) | {"audit": audit})
        return
    out.pairs(
        [
            ("auction", id), ("state", record.state), ("capability", record.capability), ("winner", record.winner), ("reason", record.reason),
            ("task", record.task if record.state in ("working", "queued", "done", "failed") else ""), ("opened", record.fields.get("opened_at")),
            ("finished", record.fields.get("finished_at")), ("error", record.error),
        ]
    )  # fmt: skip
    if record.bids:
        out.line()
        rows = [
            (one.agent, one.kind, *("-" if x is None else f"{x:g}" for x in (one.score, one.eta, one.cost, one.quality)), one.free, one.reason)
            for one in record.bids
        ]  # fmt: skip
        out.table(BIDS, rows, right=BIDS[2:7])
    out.line()
    for line in audit:
        rest = " ".join(f"{name}={value}" for name, value in line.items() if name not in ("type", "at"))
        out.line(f"{line.get('at', '')}  {line.get('type', ''):<10} {clean(rest)}".rstrip())


def as_json(record: AuctionRecord) -> dict[str, Any]:
    """An auction for programs."""
    from dataclasses import asdict

    bids = [{name: value for name, value in asdict(one).items() if name != "history"} for one in record.bids]
    return {
        "id": record.id, "state": record.state, "capability": record.capability, "winner": record.winner or None,
        "reason": record.reason or None, "bidders": list(record.bidders), "opened_at": record.fields.get("opened_at"),
        "finished_at": record.fields.get("finished_at"), "error": record.error or None, "bids": bids,
    }  # fmt: skip


@command(auction_command)
@click.argument("id")
@click.option("--by", default="cli", metavar="WHO", help="Who asks.")
async def cancel(mesh: Mesh, out: Output, id: str, by: str) -> None:
    """Cancel an auction: at once while nobody works on it, else its agent is asked to stop."""
    verdict = await mesh.auctions.cancel(id, by=by)
    if verdict == "missing":
        raise Missing(f"there is no auction {id}: never opened in this mesh, or ended longer ago than its retention")
    if out.json:
        out.object({"id": id, "verdict": verdict})
    elif verdict.startswith("running "):
        out.line(f"{id} {verdict.partition(' ')[2]} was asked to stop")
    elif verdict == "ok":
        out.line(f"{id} cancelled")
    if verdict.startswith("closed "):
        raise Refused(f"auction {id} has ended already: it is {verdict.partition(' ')[2]}")
