"""What each method chooses, and what holds for all of them."""

import math
import random

import pytest

from streammesh import Reject
from workers.summarizer import METHODS, centrality, quotable, similarities, summarize
from workers.text.sentences import sentences

TEXT = """Weather of the north

The north wind brings rain to the coast in winter. Rain from the north wind fills the rivers of the coast. People
keep umbrellas near the door all year. The rivers carry the rain of winter back to the sea. A cat sleeps on the
warm roof of the mill. Winter rain and the north wind shape the coast.

- an item
- another item

However, it depends on the year and on much more."""
ALL = sorted(METHODS)


def chosen(text: str, count: int = 3, method: str = "graph") -> list[str]:
    found: list[str] = summarize(text, count, method)["sentences"]
    return found


@pytest.mark.parametrize("method", ALL)
@pytest.mark.parametrize("count", [1, 2, 3, 50])
def test_a_summary_is_sentences_of_the_text_in_order(method: str, count: int) -> None:
    source = sentences(TEXT.replace("\n\n", "\0").replace("\n", " ").replace("\0", "\n\n"))
    positions = [source.index(sentence) for sentence in chosen("\n\n".join(source), count, method)]
    assert positions == sorted(set(positions))
    assert 1 <= len(positions) <= count


def test_lead_takes_the_first_that_can_stand_alone() -> None:
    text = (
        "However, this depends on it all.\n\nA heading\n\nThe first real sentence is here. The second one follows it."
    )
    assert summarize(text, 1, "lead")["sentences"] == ["However, this depends on it all."]
    text = "Copyright by Acme, the owner.\n\nA heading\n\nThe first real sentence is here. The second one follows it."
    assert summarize(text, 1, "lead")["sentences"] == ["The first real sentence is here."]


def test_frequency_prefers_frequent_terms_and_does_not_say_them_twice() -> None:
    text = (
        "The wheel turns the mill beside the river. The wheel of the mill turns and the mill wheel turns. "
        "The wheel turns the mill again and again. Bread comes from an oven in town. "
        "The oven in town bakes the bread of all the town."
    )
    first = chosen(text, 1, "frequency")
    both = chosen(text, 2, "frequency")
    assert "wheel" in first[0]
    assert any("oven" in sentence for sentence in both)


def test_graph_prefers_what_resembles_the_rest() -> None:
    summary = chosen(TEXT, 2)
    assert not any("cat" in sentence or "umbrellas" in sentence for sentence in summary)
    assert any("north wind" in sentence for sentence in summary)


def test_graph_does_not_repeat_itself() -> None:
    text = (
        "The north wind brings rain to the coast. The north wind brings much rain to the coast. "
        "Fishing boats leave the coast before the rain."
    )
    assert len(chosen(text, 2)) == 2
    assert "Fishing boats leave the coast before the rain." in chosen(text, 2)


@pytest.mark.parametrize("method", ALL)
def test_repeating_the_document_changes_nothing(method: str) -> None:
    assert chosen(f"{TEXT}\n\n{TEXT}", 3, method) == chosen(TEXT, 3, method)


@pytest.mark.parametrize("method", ALL)
def test_the_same_text_gives_the_same_summary(method: str) -> None:
    assert summarize(TEXT, 3, method) == summarize(TEXT, 3, method)


@pytest.mark.parametrize("method", ALL)
@pytest.mark.parametrize("text", ["", "\n\n", "A heading", ">>> code()\n\n...", "See https://example.org/ for it."])
def test_a_text_with_nothing_to_quote_has_an_empty_summary(method: str, text: str) -> None:
    assert summarize(text, 3, method) == {"sentences": [], "method": method, "considered": 0}


def test_a_text_of_list_items_offers_its_items() -> None:
    text = "Features of it\n\nFast builds on every platform there is\n\nNo configuration of any kind needed"
    assert len(chosen(text, 2, "lead")) == 2


def test_a_sentence_that_only_repeats_the_title_is_not_chosen() -> None:
    text = "Priority queues made of heaps.\n\nHeaps keep the smallest item in front of all."
    assert summarize(text, 3, "lead", title="heapq: Priority queues made of heaps")["sentences"] == [
        "Heaps keep the smallest item in front of all."
    ]


def test_the_overview_of_a_module_comes_before_its_parts() -> None:
    text = (
        "Mailboxes are read and written with the classes here.\n\n"
        "class Mailbox: A group of messages in a mailbox on a disk.\n\n"
        "Mailbox.add(): Add a message to the mailbox on a disk.\n\n"
        "Mailbox.remove(): Remove a message from the mailbox on a disk."
    )
    assert chosen(text, 1) == ["Mailboxes are read and written with the classes here."]


@pytest.mark.parametrize(("arguments", "reason"), [({"method": "magic"}, "magic"), ({"sentences": 0}, "1 to 50")])
def test_a_wrong_request_is_refused(arguments: dict[str, object], reason: str) -> None:
    with pytest.raises(Reject, match=reason):
        summarize(TEXT, **arguments)  # type: ignore[arg-type]


def test_a_very_long_text_is_judged_by_its_first_sentences() -> None:
    pick = random.Random(7).choice
    nouns = [f"{a}{b}" for a in ("stone", "river", "cloud", "forest") for b in ("bank", "side", "line", "house", "way")]
    text = " ".join(f"The {pick(nouns)} near the {pick(nouns)} has {pick(nouns)} number {n}." for n in range(2_000))
    assert summarize(text)["considered"] == 400


def test_similarity_is_symmetric_and_a_cosine() -> None:
    edges = similarities([["rain", "wind"], ["rain", "coast"], ["cat"], ["wind", "rain"]])
    assert edges[0][1] == edges[1][0]
    assert math.isclose(edges[0][3], 1.0)
    assert 0 < edges[0][1] < 1
    assert edges[2] == {}


def test_centrality_is_a_distribution_and_the_hub_is_its_peak() -> None:
    star: list[dict[int, float]] = [{1: 1.0, 2: 1.0, 3: 1.0}, {0: 1.0}, {0: 1.0}, {0: 1.0}, {}]
    ranks = centrality(star, [1.0] * 5)
    assert math.isclose(sum(ranks), 1.0, rel_tol=1e-9)
    assert max(ranks) == ranks[0]
    assert math.isclose(ranks[1], ranks[3])


def test_candidates_are_different_sentences() -> None:
    assert len(quotable("The same sentence stands here. The same sentence stands here.")) == 1
