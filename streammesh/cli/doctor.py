"""`doctor`: judges server, mesh and client, and says what helps."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from streammesh.cli.output import Output, clean
from streammesh.cli.session import Session, command

if TYPE_CHECKING:
    from streammesh.checkup import Finding

__all__ = ["doctor_command"]

MARKS = {"ok": ("✔", "green"), "note": ("!", "yellow"), "fault": ("✘", "red")}


@command(epilog="✔ good   ! should be known   ✘ a fault: it must be mended. -q leaves out what is good.")
def doctor(session: Session) -> int:
    """Judge server, mesh and client; say the cure. Exits 1 if there is a fault, 3 when the server is away."""
    session.log("ERROR")
    out = session.output
    findings, code = asyncio.run(_examine(session))
    if out.json:
        out.object(
            {
                "healthy": code == 0,
                "findings": [
                    {"subject": one.subject, "verdict": one.verdict, "text": one.text, "cure": one.cure}
                    for one in findings
                ],
            }
        )
    else:
        _show(out, findings)
        faults = sum(one.verdict == "fault" for one in findings)
        out.note(f"{faults} fault{'s' * (faults != 1)}" if faults else "healthy")
    return code


def _show(out: Output, findings: list[Finding]) -> None:
    width = max((len(one.subject) for one in findings), default=0)
    for one in findings:
        if out.quiet and one.verdict == "ok":
            continue
        mark, colour = MARKS[one.verdict]
        out.line(f"{out.style(mark, fg=colour)} {one.subject.ljust(width)}  {clean(one.text)}")
        if one.cure and one.verdict != "ok":
            out.line(f"  {' ' * width}  → {clean(one.cure)}")


async def _examine(session: Session) -> tuple[list[Finding], int]:
    from streammesh.checkup import Finding, examine_client, examine_mesh, examine_server
    from streammesh.errors import ConfigError, StoreUnavailable

    findings = examine_client()
    mesh = session.mesh()
    try:
        try:
            await mesh.open()
        except ConfigError as error:
            # It answers, but nobody can work with it: what INFO says is still worth hearing.
            store = session.mesh().store
            try:
                findings += await examine_server(store) if store.genuine else []
            finally:
                await store.close()
            if not any(one.verdict == "fault" for one in findings):
                findings.append(Finding("mesh", "fault", str(error), "see the message"))
            return findings, 1
        findings += await examine_server(mesh.store)
        findings += await examine_mesh(mesh.store, mesh.keys)
    except StoreUnavailable as error:
        return [
            *findings,
            Finding("server", "fault", str(error), "start it, wait until it has loaded, or correct --url"),
        ], 3
    finally:
        await mesh.close()
    return findings, int(any(one.verdict == "fault" for one in findings))


doctor_command = doctor
