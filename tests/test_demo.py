"""The demonstration as a user runs it: documents in, a digest out, an agent killed in each phase, nothing lost."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent

SENTENCES = (
    "The lighthouse keeper counts the ships that pass in the night.",
    "A ship without a light is a danger to every other ship.",
    "In the harbour the pilots wait for the morning tide.",
    "The tide tables are printed once a year, and everybody reads them.",
    "Fog is the keeper's enemy, because a lamp does not help against it.",
)


def demo(*arguments: str | Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "ops.demo", *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, cwd=ROOT, timeout=110, check=False)


def library(folder: Path) -> Path:
    """Eight dozen documents of every readable kind, each third one long, one that is binary and one that is empty."""
    folder.mkdir()
    for number in range(96):
        kind = ("md", "txt", "rst", "html", "py")[number % 5]
        # Long enough that an agent is busy for a while: each sentence returns in many a variation.
        tale = [
            f"{sentence[:-1]}, says {name} of harbour {harbour}."
            for harbour in range(number, number + (12 if number % 3 else 40))
            for sentence, name in zip(SENTENCES, ("Ada", "Bo", "Cy", "Dee", "Eve"), strict=True)
        ]
        text = "\n\n".join([*SENTENCES, *tale, f"This is volume number {number}."])
        if kind == "html":
            text = f"<html><head><title>Volume {number}</title></head><body><p>{text}</p></body></html>"
        elif kind == "py":
            text = f'"""Volume {number}.\n\n{text}\n"""\n'
        (folder / f"volume-{number:02}.{kind}").write_text(text)
    (folder / "broken.txt").write_bytes(b"\x00\x01\x02\x03" * 40)
    (folder / "empty.md").write_text("")
    return folder


def test_the_run_survives_a_death_in_each_phase_and_that_of_its_executor(tmp_path: Path) -> None:
    """Exit 0, a digest with every document, a table that says lost 0, doubled 0, and a story in which agents die."""
    digest = tmp_path / "digest.md"
    done = demo(library(tmp_path / "library"), "-o", digest)
    assert done.returncode == 0, done.stdout + done.stderr
    cells = [cell.strip() for cell in re.search(r"│\s+\d+ │.*│", done.stdout)[0].strip("│").split("│")]  # type: ignore[index]
    documents, runs, steps, taken_over, lost, doubled, _ = cells
    # One of the 97 cannot be read.
    assert (documents, runs, lost, doubled) == ("96", "98", "0", "0")
    assert int(steps) > 96 * 6
    assert int(taken_over) >= 1
    assert [one.partition(":")[0] for one in re.findall(r"SIGKILL to librarian\.\d+, (.+)", done.stdout)] == [
        "in a brainstorm",
        "in an auction",
        "in a critique",
        "in a vote",
        "the executor of the run",
    ]
    row, counted = "", dict.fromkeys(("auctions", "brainstorms", "votes"), 0)
    for what, count in re.findall(r"│ (\w*) +│ +(\d+) │", done.stdout):
        row = what or row
        counted[row] += int(count)
    assert (counted["auctions"], counted["brainstorms"]) == (32, 64), "each document is one or the other"
    killed = re.search(r"SIGKILL to (librarian\.\d+), the executor of the run", done.stdout)
    assert killed, done.stdout
    assert f"* {killed[1]} is dead; another agent replays the journal and goes on" in done.stdout
    assert "end succeeded" in done.stdout
    assert "broken.txt is binary, not text" in done.stdout
    text = digest.read_text()
    assert text.startswith("# Digest of library")
    assert all(f"volume-{number:02}" in text for number in range(96))
    assert "lighthouse keeper" in text
    assert len(re.findall(r"^\*Summary:\* (?:graph|frequency|lead), auctioned$", text, re.MULTILINE)) == 32
    assert len(re.findall(r"^\*Summary:\* (?:graph|frequency|lead), (?:by|all|the)", text, re.MULTILINE)) == 64


def test_a_folder_that_is_not_there_is_named(tmp_path: Path) -> None:
    done = demo(tmp_path / "nowhere")
    assert done.returncode == 1
    assert "nowhere; give one that holds documents" in done.stderr


def test_a_folder_without_documents_is_no_success(tmp_path: Path) -> None:
    (tmp_path / "bare").mkdir()
    done = demo(tmp_path / "bare", "-o", tmp_path / "digest.md")
    assert done.returncode == 1
    assert "no readable document" in done.stdout
