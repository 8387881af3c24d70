"""The digest is a text to read, and Markdown that means what it shows."""

from typing import Any

import pytest

from streammesh import Reject
from workers.editor import assemble_digest, prose

DOCUMENTS: list[dict[str, Any]] = [
    {
        "path": "lib/heap.py",
        "title": "lib.heap: Priority queues with __init__",
        "words": 1200,
        "summary": ["Heaps are arrays for which a[k] <= a[2*k+1] holds.", "class Heap: A heap_queue of items"],
        "keywords": [{"term": "heap queue", "score": 3.2}, {"term": "heap_queue", "score": 1.0}],
    },
    {"path": "guide.md", "title": "A guide", "words": 1, "summary": [], "keywords": ["Zebra", "heap queue"]},
    {"path": "empty.md", "title": "empty", "words": 0, "summary": [], "keywords": []},
]
DIGEST = """# All of it

2 documents with 1,201 words, by folder; at the end an index of keywords. 1 more without any prose is named before the index.

## Top folder

### A guide

`guide.md`, 1 word

*Keywords:* Zebra, heap queue

## lib/

### `lib.heap`: Priority queues with `__init__`

`lib/heap.py`, 1,200 words

Heaps are arrays for which `a[k] <= a[2*k+1]` holds. `class Heap`: A `heap_queue` of items.

*Keywords:* heap queue, `heap_queue`

## Documents without prose

`empty.md`.

## Index of keywords

### H

- heap queue: `guide.md`, `lib/heap.py`
- `heap_queue`: `lib/heap.py`

### Z

- Zebra: `guide.md`
"""


def test_the_digest_reads_like_this() -> None:
    assert assemble_digest(DOCUMENTS, "All of it") == {"markdown": DIGEST, "documents": 3, "keywords": 3}


def test_the_order_of_the_documents_does_not_matter() -> None:
    assert assemble_digest(DOCUMENTS[::-1], "All of it")["markdown"] == DIGEST


def test_sections_written_one_by_one_make_the_whole() -> None:
    def section(name: str, documents: list[dict[str, Any]]) -> str:
        text: str = assemble_digest(documents, "All of it", sections=[name])["markdown"]
        return text

    short = [{key: value for key, value in document.items() if key != "summary"} for document in DOCUMENTS]
    halves = [section("entries", [document]) for document in (DOCUMENTS[1], DOCUMENTS[0])]
    assert "\n".join([section("head", short), *halves, section("index", short)]) == DIGEST


@pytest.mark.parametrize(
    ("text", "marked"),
    [
        ("Call f(x, y) or g.h() now.", "Call `f(x, y)` or `g.h()` now."),
        ("Fix list(filter(F, X)), please.", "Fix `list(filter(F, X))`, please."),
        ("It turns f(v, k) into (f)(*v, **k).", "It turns `f(v, k)` into `(f)(*v, **k)`."),
        ("The names (a_b -> c_d) change.", "The names (`a_b -> c_d`) change."),
        ("Decimal('0.1') is 'not_here'.", "`Decimal('0.1')` is `not_here`."),
        ('Set isolation="process", then.', 'Set `isolation="process"`, then.'),
        ("See os.path and .netrc files.", "See `os.path` and `.netrc` files."),
        (
            "Any file(s), and/or class(es), e.g. Node.js at 3.11.",
            "Any file(s), and/or class(es), e.g. Node.js at 3.11.",
        ),
        ("The x <= y of <b> &amp; more.", "The x <= y of `<b>` `&amp;` more."),
        ("It has *stars and __dunders__ and \\escapes.", "It has `*stars` and `__dunders__` and `\\escapes`."),
        ("Two 'quoted words' stay.", "Two 'quoted words' stay."),
        ("An unclosed f(x is no harm.", "An unclosed `f(x is no harm.`"),
        ("A lone ` tick_ed` word.", "A lone ` `tick_ed` word."),
        ("", ""),
    ],
)
def test_code_is_set_as_code_and_prose_is_left_alone(text: str, marked: str) -> None:
    assert prose(text) == marked


def test_entries_in_portions_name_each_folder_once() -> None:
    paths = ["x.md", "a/1.md", "a/2.md", "b/1.md"]
    documents = [{"path": path, "title": "t", "words": 1} for path in paths]
    whole = assemble_digest(documents, sections=["entries"])["markdown"]
    portions = [
        assemble_digest(documents[n : n + 1], sections=["entries"], after=paths[n - 1] if n else "") for n in range(4)
    ]
    assert "\n".join(portion["markdown"] for portion in portions) == whole
    assert whole.count("## a/\n") == 1


def test_a_keyword_of_very_many_documents_names_some_and_counts_the_rest() -> None:
    documents = [{"path": f"{n:02}.md", "title": "t", "words": 1, "keywords": ["codec"]} for n in range(20)]
    assert "`11.md` and 8 more" in assemble_digest(documents)["markdown"]


def test_nothing_at_all_is_a_digest_too() -> None:
    assert assemble_digest([])["markdown"].startswith("# Digest\n\n0 documents with 0 words")


def test_a_wrong_request_is_refused() -> None:
    with pytest.raises(Reject, match="unknown section 'tail'"):
        assemble_digest([], sections=["tail"])
    with pytest.raises(Reject, match="without a path"):
        assemble_digest([{"title": "x"}])
