"""The digest: workflow `digest` makes one Markdown text of a folder, workflow `digest-document` what it says of one document.

Both are ordinary coroutines: the work is done by the other workers, and whichever agent is alive goes on with the run.
"""

import asyncio
from typing import Any

from streammesh import Agent, Run, errors
from workers.keywords import document_frequencies
from workers.summarizer import METHODS

IN_FLIGHT = 32  # documents that are worked on at once
ENTRIES = 200  # of one part of the digest: a payload and a result have limits

agent = Agent("digest", slots=4)


@agent.workflow("digest")
async def digest(run: Run, folder: str, title: str = "Digest") -> dict[str, Any]:
    """Reads every document of a folder and assembles what they say.

    Returns {markdown, documents: n, refused: [{path, why}], methods: {method that was chosen: n}}.
    """
    paths = await listed(run, folder)
    run.set_status(phase="digesting", documents=len(paths), done=0)
    gate = asyncio.Semaphore(IN_FLIGHT)
    done = 0

    async def one(number: int, path: str) -> dict[str, Any]:
        nonlocal done
        async with gate:
            found: dict[str, Any] = await run.child(
                "digest-document", folder=folder, path=path, id=f"document-{number}"
            )
        done += 1
        run.set_status(phase="digesting", documents=len(paths), done=done)
        return found

    found = await asyncio.gather(*(one(number, path) for number, path in enumerate(paths)))
    documents = [document for document in found if "refused" not in document]
    await rank(run, documents)
    run.set_status(phase="assembling", documents=len(paths), done=done)
    methods = [document["method"] for document in documents]
    return {
        "markdown": await assemble(run, documents, title),
        "documents": len(documents),
        "refused": [{"path": one["path"], "why": one["refused"]} for one in found if "refused" in one],
        "methods": {method: methods.count(method) for method in sorted(set(methods))},
    }


async def listed(run: Run, folder: str) -> list[str]:
    """The documents of the folder; a long listing comes in several results."""
    paths: list[str] = []
    more = True
    while more:
        listing = await run.call("list-documents", folder=folder, after=paths[-1] if paths else "")
        paths += listing["documents"]
        more = listing["more"]
    return paths


async def rank(run: Run, documents: list[dict[str, Any]]) -> None:
    """Keywords by what is frequent in a document and rare in the others: only now all of them are known."""
    frequencies = document_frequencies(document["counts"] for document in documents)

    def payload(counts: dict[str, int]) -> dict[str, Any]:
        return {
            "counts": counts,
            "documents": len(documents),
            "frequencies": {term: frequencies[term] for term in counts},
        }

    ranked = await run.map(
        "rank-keywords", [payload(document.pop("counts")) for document in documents], limit=IN_FLIGHT
    )
    for document, ranking in zip(documents, ranked, strict=True):
        document["keywords"] = ranking["keywords"]


async def assemble(run: Run, documents: list[dict[str, Any]], title: str) -> str:
    """Head and index from documents without summaries, the entries some hundred at a time: none is too large."""
    bare = [{key: document[key] for key in ("path", "title", "words", "keywords")} for document in documents]
    starts = range(0, len(documents), ENTRIES)
    parts = [
        ("head", bare, ""),
        *(("entries", documents[n : n + ENTRIES], documents[n - 1]["path"] if n else "") for n in starts),
        ("index", bare, ""),
    ]
    texts = await asyncio.gather(
        *(
            run.call("assemble-digest", documents=some, title=title, sections=[part], after=after)
            for part, some, after in parts
        )
    )
    return "\n".join(text["markdown"] for text in texts)


@agent.workflow("digest-document")
async def digest_document(run: Run, folder: str, path: str) -> dict[str, Any]:
    """Reads one document, counts its terms, and chooses a summary.

    Returns {path, title, words, summary: [sentence], method, counts}, or {path, refused} for one that cannot be read.
    """
    try:
        read = await run.call("read-document", path=path, folder=folder)
    except errors.StepFailed as refusal:
        return {"path": path, "refused": str(refusal)}
    text, title = read["text"], read["title"]
    counted, chosen = await asyncio.gather(run.call("count-terms", text=text), summary(run, text, title))
    return {
        "path": path, "title": title, "words": read["words"], "summary": chosen["sentences"], "method": chosen["method"],
        "counts": counted["counts"],
    }  # fmt: skip


async def summary(run: Run, text: str, title: str) -> dict[str, Any]:
    """What each method proposes is judged by a critic; the best is kept."""

    async def proposed(method: str) -> dict[str, Any]:
        made = await run.call("summarize", text=text, method=method, title=title)
        judged = await run.call("criticize", summary=made["sentences"], text=text)
        return {**made, **judged}

    proposals = await asyncio.gather(*(proposed(method) for method in METHODS))
    return max(proposals, key=lambda one: float(one["overall"]))


if __name__ == "__main__":
    agent.run()
