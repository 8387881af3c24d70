"""Markup goes, prose stays, word for word."""

import pytest

from workers.text.cleaning import markdown, plain


def test_lines_of_a_paragraph_are_joined_and_paragraphs_kept_apart() -> None:
    assert plain("One\nparagraph.\n\n\nAnother   one.") == "One paragraph.\n\nAnother one."


@pytest.mark.parametrize(
    ("marked", "clean"),
    [
        ("Use ``heappush`` and :func:`~heapq.heappop`.", "Use heappush and heappop."),
        ("Of ``s`` (a ``str``), take ``s[0]``.", "Of s (a str), take s[0]."),
        ("See the :ref:`manual <man-page>` for it.", "See the manual for it."),
        ("A `link text <https://example.org/a_b>`_ in it.", "A link text in it."),
        ("It is *very* **bold** there.", "It is very bold there."),
        ("Takes \\*args and ``**kwargs`` too.", "Takes *args and **kwargs too."),
        ("The `old' quoting of manuals.", "The old quoting of manuals."),
        ("JSON <https://json.org> is small.", "JSON is small."),
        ("As shown before [1]_, it works.", "As shown before, it works."),
        ("A snake_case_name and __init__ stay.", "A snake_case_name and __init__ stay."),
        ("One thing -- and another.", "One thing – and another."),
    ],
)
def test_inline_marks_of_rst_go(marked: str, clean: str) -> None:
    assert plain(marked) == clean


def test_what_is_in_a_code_span_is_no_markup() -> None:
    assert plain("Call ``f(*args)`` or ``g(**kw)`` now.") == "Call f(*args) or g(**kw) now."
    assert markdown("The file `src/__init__.py` and `a[0](x)`.") == "The file src/__init__.py and a[0](x)."


@pytest.mark.parametrize(
    "block",
    [
        ">>> heappush(h, 1)\n>>> h\n[1]",
        "    x = heap[0]      # smallest item\n    heapify(x)       # in place",
        "bisect_left(a, x, lo=0) -> index",
        "=====  =====\nA      B\n=====  =====\n1      2\n=====  =====",
        "+---+---+\n| a | b |\n+---+---+",
        ".. code-block:: python\n\n   import heapq\n   print(heapq)",
        ".. versionadded:: 3.2\n   The new thing.",
        ".. image:: picture.png",
        ".. a comment",
        ":param x: the item\n:returns: nothing",
    ],
)
def test_what_is_no_prose_goes(block: str) -> None:
    assert plain(f"Before it.\n\n{block}\n\nAfter it.") == "Before it.\n\nAfter it."


def test_a_literal_block_goes_but_not_what_introduces_it() -> None:
    assert plain("For example::\n\n    any text at all\n\nAnd on.") == "For example:\n\nAnd on."


def test_a_note_is_prose() -> None:
    assert plain(".. note:: Mind the gap,\n   it is wide.\n\nDone.") == "Mind the gap, it is wide.\n\nDone."


def test_headings_and_list_items_are_paragraphs() -> None:
    text = "Title of it\n===========\nText here.\n\n- first item\n  goes on\n- second item\n\n1. numbered"
    assert plain(text) == "Title of it\n\nText here.\n\nfirst item goes on\n\nsecond item\n\nnumbered"


def test_a_signature_before_the_description_goes() -> None:
    assert plain("openpty() -> (master, slave)\nOpen a pty pair.") == "Open a pty pair."


def test_a_line_without_full_stop_does_not_run_into_the_next_sentence() -> None:
    assert plain("Path operations common to all systems\nDo not use directly.").count("\n\n") == 1


def test_prose_with_symbols_in_it_stays() -> None:
    text = "Heaps are arrays for which a[k] <= a[2*k+1] and a[k] <= a[2*k+2] for all k,\ncounting elements from 0."
    assert plain(text) == text.replace("\n", " ")


def test_markdown_leaves_its_prose() -> None:
    text = """---
title: front matter
---
# The `mesh` guide #

[![build](https://ci/badge.svg)](https://ci) <!-- hidden -->

Text with a [link](https://example.org/a_(b)), *emphasis*, __strong__ and <b>HTML</b>.

```python
secret = code()
```

> A quoted line.

| a | b |
|---|---|
| 1 | 2 |

* [x] done item

Second heading
--------------

    indented code

The end is 3 < 4.

[ref]: https://example.org
"""
    assert markdown(text).split("\n\n") == [
        "The mesh guide",
        "Text with a link, emphasis, strong and HTML.",
        "A quoted line.",
        "done item",
        "Second heading",
        "The end is 3 < 4.",
    ]


def test_a_fence_that_is_never_closed_hides_the_rest() -> None:
    assert markdown("Before.\n\n```\ncode\n\nmore code") == "Before."


@pytest.mark.parametrize(
    "piece", ["![", "[a](", "<!--", "`", "*", "_", "\n", "   \n", "    x\n", ":a", "<a ", "- ", "("]
)
def test_odd_input_takes_no_longer_than_its_length_allows(piece: str) -> None:
    """A pattern that tries again from every position would need minutes here; the suite's timeout says so."""
    text = piece * (60_000 // len(piece))
    markdown(text)
    plain(text)
