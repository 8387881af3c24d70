"""Records the corpus of journals: python -m tests.runs.record [FOLDER]

Run it for each release, after its version is set in `streammesh/__init__.py`, and commit the folder it makes:
tests/runs/journals/<version>/<shape>-<seed>.jsonl, one journal a file, one record a line. Folders of earlier releases are
never touched: that their journals still replay is what `tests/runs/test_corpus.py` checks. A shape that has to change gets a new
name, because runs of the old one may still be under way somewhere.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

import streammesh
from tests.runs.shapes import SHAPES
from tests.runs.world import World

CORPUS = Path(__file__).parent / "journals"
SEEDS = (1, 2)


def record(folder: Path) -> int:
    """Write the journals of every shape into ``folder``; returns how many. Raises FileExistsError."""
    folder.mkdir(parents=True, exist_ok=False)
    count = 0
    for name, shape in SHAPES.items():
        for seed in SEEDS:
            world = World(shape, f"record/{seed}")
            state, value = world.run()
            # The world writes how it ended; servers write what came of it as well.
            world.journal[-1]["result" if state == "succeeded" else "error"] = value
            for number, journal in enumerate([*world.generations, world.journal]):
                part = f"-g{number}" if world.generations else ""
                lines = "".join(json.dumps(line, separators=(",", ":"), ensure_ascii=False) + "\n" for line in journal)
                (folder / f"{name}-{seed}{part}.jsonl").write_text(lines)
                count += 1
    return count


if __name__ == "__main__":
    wanted = Path(sys.argv[1]) if len(sys.argv) > 1 else CORPUS / streammesh.__version__
    sys.stdout.write(f"{record(wanted)} journals in {wanted}\n")
