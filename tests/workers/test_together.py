"""The five agents on one mesh: a folder goes in, a digest comes out, and what cannot be read is said."""

import asyncio
from pathlib import Path
from typing import Any

import pytest

from streammesh import Mesh, errors
from workers import critic, editor, keywords, reader, summarizer

AGENTS = (reader.agent, keywords.agent, summarizer.agent, critic.agent, editor.agent)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "heap.md").write_text(
        "# Heaps\n\nA heap is a tree of items. The root of a heap is its smallest item. Items of a heap are pushed."
    )
    (tmp_path / "vote.rst").write_text("Votes\n=====\n\nA vote needs a quorum. The quorum of a vote is fixed early.\n")
    (tmp_path / "broken.py").write_text("def (:")
    return tmp_path


async def digest(mesh: Mesh, folder: Path) -> tuple[str, list[str]]:
    listing = await mesh.call("list-documents", {"folder": str(folder)}, timeout=20)
    read = [await mesh.enqueue("read-document", {"path": p, "folder": listing["folder"]}) for p in listing["documents"]]
    documents, refused = [], []
    for task in read:
        try:
            documents.append(await task.result(timeout=20))
        except errors.MeshError as error:
            refused.append(str(error))
    counts = [(await mesh.call("count-terms", {"text": d["text"]}, timeout=20))["counts"] for d in documents]
    frequencies = keywords.document_frequencies(counts)
    entries: list[dict[str, Any]] = []
    for document, count in zip(documents, counts, strict=True):
        known = {term: frequencies[term] for term in count}
        ranking = {"counts": count, "frequencies": known, "documents": len(documents)}
        summary = {"text": document["text"], "title": document["title"], "sentences": 2}
        ranked = await mesh.call("rank-keywords", ranking, timeout=20)
        chosen = (await mesh.call("summarize", summary, timeout=20))["sentences"]
        scores = await mesh.call("criticize", {"summary": chosen, "text": document["text"]}, timeout=20)
        assert 0.0 < scores["overall"] <= 1.0
        entries.append({**document, "text": "", "summary": chosen, "keywords": ranked["keywords"]})
    written = await mesh.call("assemble-digest", {"documents": entries, "title": "Notes"}, timeout=20)
    return written["markdown"], refused


async def test_a_folder_becomes_a_digest(url: str, namespace: str, folder: Path) -> None:
    async with Mesh.connect(url, namespace=namespace) as mesh:
        served = [asyncio.create_task(agent.serve(mesh)) for agent in AGENTS]
        try:
            markdown, refused = await digest(mesh, folder)
        finally:
            for agent in AGENTS:
                agent.stop()
            await asyncio.gather(*served)
    assert markdown.startswith("# Notes\n\n2 documents with 37 words")
    assert "### Heaps\n\n`heap.md`, 23 words\n\nA heap is a tree of items. The root of a heap" in markdown
    assert "- quorum: `vote.rst`" in markdown
    assert len(refused) == 1
    assert "broken.py is not source that this Python can parse" in refused[0]
