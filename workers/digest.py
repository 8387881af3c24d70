"""The digest: workflow `digest` makes one Markdown text of a folder, workflow `digest-document` what it says of one document.

Both are ordinary coroutines: the work is done by the other workers, and whichever agent is alive goes on with the run.
The summary of a document is chosen by the mesh: summarizers propose, critics score, critics vote. A long document is
auctioned among the summarizers instead.
"""

import asyncio
from typing import Any

from streammesh import Agent, Run, errors
from workers.keywords import document_frequencies
from workers.summarizer import METHODS

IN_FLIGHT = 32  # documents that are worked on at once
LONG = 1500  # words; what is longer is summarized once, by whoever bids best
PATIENCE = 30.0  # seconds for proposals and ballots; agents that are dead are not waited for
STALL = 2.0  # seconds without another proposal, after which those that came are enough
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

    Returns {path, title, words, summary: [sentence], method, how, counts}, or {path, refused} for one that cannot be read.
    """
    try:
        read = await run.call("read-document", path=path, folder=folder)
    except errors.StepFailed as refusal:
        return {"path": path, "refused": str(refusal)}
    text, title = read["text"], read["title"]
    choose = auctioned if read["words"] > LONG else voted
    counted, chosen = await asyncio.gather(run.call("count-terms", text=text), choose(run, text, title))
    return {"path": path, "title": title, "words": read["words"], **chosen, "counts": counted["counts"]}


async def auctioned(run: Run, text: str, title: str) -> dict[str, Any]:
    """By the summarizer that bids best, by its own method: {summary, method, how}."""
    made = await run.auction(
        "summarize", text=text, title=title, method="own", score={"eta": 1, "quality": 1, "history": 1}
    )
    return {"summary": made["sentences"], "method": made["method"], "how": "auctioned"}


async def voted(run: Run, text: str, title: str) -> dict[str, Any]:
    """Brainstorm, critique and vote: {summary, method, how}. Without a decision the proposal that scores best is taken."""
    asked = await proposed(run, text, title)
    proposals = distinct(asked)
    methods = list(proposals)
    if len(methods) == 1:
        how = "all proposals were the same" if len(asked) > 1 else "the only proposal"
        return {"summary": proposals[methods[0]], "method": methods[0], "how": how}
    judged = await run.map("criticize", [{"summary": summary, "text": text} for summary in proposals.values()])
    scores = dict(zip(methods, judged, strict=True))
    methods.sort(key=lambda method: (-scores[method]["overall"], method))
    best, how = methods[0], "by its score"
    try:
        decision = await run.vote(
            f"Which summary of {title or 'the text'}?", methods, topic="best-summary", payload={"scores": scores},
            method="plurality", deadline=PATIENCE,
        )  # fmt: skip
    except errors.StepFailed as nobody:
        how += f": {nobody}"
    else:
        if decision.winner:
            best, how = decision.winner, f"by {decision.support} of {decision.cast} votes"
        else:
            how += f": the vote came to {decision.outcome}"
    return {"summary": proposals[best], "method": best, "how": how}


async def proposed(run: Run, text: str, title: str) -> list[dict[str, Any]]:
    """What every summarizer proposes that answers, as `summarize` returns it; one at least."""
    try:
        asked = await run.collect("propose-summary", {"text": text, "title": title}, timeout=PATIENCE, stall=STALL)
    except (errors.TooFewAnswers, errors.StepFailed):
        # Nobody was there to be asked, or died over it. A task waits for somebody.
        return [await run.call("summarize", text=text, title=title)]
    return [answer for _, answer in asked.responses]


def distinct(proposals: list[dict[str, Any]]) -> dict[str, list[str]]:
    """Method -> its summary, the more thorough method first; of those that say the same only one."""
    found: dict[str, list[str]] = {}
    for one in sorted(proposals, key=lambda one: list(METHODS).index(one["method"])):
        if one["sentences"] not in found.values():
            found[one["method"]] = one["sentences"]
    return found


if __name__ == "__main__":
    agent.run()
