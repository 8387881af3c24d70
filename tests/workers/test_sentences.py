"""Where sentences end, and which of them can be quoted."""

import pytest

from workers.text.sentences import fitness, places, sentences

GOOD = "The heap queue algorithm keeps the smallest item at the front of a list."


@pytest.mark.parametrize(
    "text",
    [
        "Use e.g. a list, i.e. a sequence of items.",
        "It was written by J. Smith and Dr. Jones.",
        "Python 3.11 is needed, cf. Fig. 2 of it.",
        "The file os.path vs. Path is read, etc. and so on.",
        "Is this file, spam.py, read? no, it is not",
        "Values are 0.5 and 1.0 at most.",
        "It says 'always the same.' in lower case",
    ],
)
def test_one_sentence_stays_one(text: str) -> None:
    assert sentences(text) == [text]


@pytest.mark.parametrize(
    ("text", "count"),
    [
        ("First one. Second one! Third one? Fourth.", 4),
        ('He said "stop." Then he left. (Really.) So it ends.', 4),
        ("All of list L. The rest stays. It ends with x. So be it.", 4),
        ("Wait... There is more. os.path is a module. foo_bar does it.", 4),
        ("First it moves (on-screen!) 15 pixels there. Then it stops (at last). So it is. Done.", 4),
        ("Heading without stop\n\nFirst item\n\nA sentence. And another one.", 4),
        ("", 0),
    ],
)
def test_sentences_are_told_apart(text: str, count: int) -> None:
    assert len(sentences(text)) == count


def test_no_word_is_lost_or_moved() -> None:
    text = "One. Two e.g. three!  Four...\n\n\n\nFive (six. Seven) Eight. "
    assert " ".join(sentences(text)).split() == text.split()


def test_a_plain_sentence_is_fit() -> None:
    assert fitness(GOOD) == 1.0
    assert fitness(f"heapify(): {GOOD}") == 1.0
    assert fitness(f"class Heap: {GOOD}") == 1.0


@pytest.mark.parametrize(
    "sentence",
    [
        "Copyright 2001 by the foundation, all of it.",
        "Permission is hereby granted to use this text.",
        "This software comes without any warranty of whatever kind.",
        'The code is provided on an "as is" basis for everybody.',
        "Written in the winter by some person at home.",
        "Send all reports to somebody@example.org as a message.",
        "The source lives at https://example.org/source these days.",
        "TODO this must be described in the manual.",
        ">>> heappush(heap, item) gives None in the shell.",
        "x = heap[0] and y = heap[1] give [1, 2].",
        "A heading without a full stop at the end",
        "and this goes on from some other sentence.",
        "A sentence that opens (a bracket and ends.",
        "It introduces the following list of things:",
        "Too short.",
        "THE SHOUTED WORDS OF A LEGAL TEXT ARE NOTHING.",
        "It goes on and on...",
        "The correct way to write it today is.",
        "Here os.pardir is the parent directory (always '..')",
    ],
)
def test_fragments_code_licences_and_credits_are_never_fit(sentence: str) -> None:
    assert fitness(sentence) == 0.0


@pytest.mark.parametrize(
    "sentence",
    [
        "However, the heap queue algorithm keeps the smallest item at the front.",
        "It keeps the smallest of all the items at the front of a list.",
        "(The heap queue algorithm keeps the smallest item at the front of a list.)",
        "The example above keeps the smallest of all the items in front.",
        "Does the heap queue algorithm keep the smallest item at the front?",
    ],
)
def test_sentences_that_lean_on_others_are_less_fit(sentence: str) -> None:
    assert 0.0 < fitness(sentence) < fitness(GOOD)


def test_a_text_says_first_what_it_is_about_and_its_parts_count_less() -> None:
    first, later, named, unnamed = places(["What it is.", "And more.", "push(): Push an item.", "It returns nothing."])
    assert first == 1.0
    assert first > later > named > unnamed > 0.0
    assert places([]) == []
