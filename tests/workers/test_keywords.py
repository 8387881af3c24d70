"""Counting terms, and ranking them against a corpus."""

import math

import pytest

from streammesh import Reject
from workers.keywords import best_terms, count_terms, document_frequencies, rank_keywords, tf_idf

CORPUS = [
    "The mesh has agents. Agents claim a lease. The lease ends.",
    "The mesh has a journal. Every step is in the journal.",
    "The mesh holds votes. A vote needs a quorum, and a quorum needs agents.",
]


def keywords_of(index: int) -> list[str]:
    counts = [count_terms(text)["counts"] for text in CORPUS]
    frequencies = document_frequencies(counts)
    ranked = rank_keywords(counts[index], frequencies, len(CORPUS))
    return [keyword["term"] for keyword in ranked["keywords"]]


def test_counting_folds_words_and_leaves_stop_words_out() -> None:
    assert count_terms("A heap, two heaps, and the queue.") == {
        "counts": {"heap": 2, "queue": 1},
        "total": 3,
        "words": 7,
    }
    assert count_terms("") == {"counts": {}, "total": 0, "words": 0}


def test_a_pair_of_adjacent_words_counts_when_it_comes_back() -> None:
    counts = count_terms("The event loop runs. An event loop stops. A loop event. Loop the event.")["counts"]
    assert counts["event loop"] == 2
    assert "loop event" not in counts  # once, and once with a stop word between


def test_licences_and_credits_do_not_count_unless_there_is_nothing_else() -> None:
    assert "copyright" not in count_terms("Copyright by Acme. A heap of items.")["counts"]
    assert "copyright" in count_terms("Copyright by Acme.")["counts"]


def test_a_docstring_counts_for_the_class_it_belongs_to() -> None:
    counts = count_terms("class Mailbox: A mailbox.\n\nMailbox.add(): Add a message.")["counts"]
    assert counts == {"mailbox": 3, "add": 1, "message": 1}


def test_only_the_most_frequent_terms_are_kept() -> None:
    assert count_terms("zebra ant ant bee bee", limit=2)["counts"] == {"ant": 2, "bee": 2}


def test_keywords_are_what_the_other_documents_do_not_have() -> None:
    assert keywords_of(0)[0] == "lease"
    assert keywords_of(1)[0] == "journal"
    assert keywords_of(2)[:2] == ["quorum", "vote"]
    assert all("mesh" not in keywords_of(index)[:2] for index in range(3))


def test_a_term_in_all_documents_scores_least_of_its_count() -> None:
    scores = tf_idf({"a": 2, "b": 2, "c": 2}, {"a": 9, "b": 8, "c": 1}, 9)
    assert scores["a"] < scores["b"] < scores["c"]
    assert scores["a"] > 0


def test_more_mentions_never_score_less() -> None:
    scores = [tf_idf({"a": n}, {"a": 3}, 9)["a"] for n in range(1, 20)]
    assert scores == sorted(scores)
    assert all(math.isfinite(score) for score in scores)


def test_ranking_does_not_depend_on_the_order_of_the_counts() -> None:
    counts = {"a b": 2, "c": 3, "d": 3, "e": 3}
    turned = dict(reversed(counts.items()))
    assert rank_keywords(counts, {}, 5) == rank_keywords(turned, {}, 5)


def test_a_word_is_named_once_alone_or_in_a_pair() -> None:
    assert best_terms({"event loop": 3.0, "loop": 2.9, "event": 2.8, "socket": 2.0}, 6) == ["event loop", "socket"]


def test_terms_far_behind_the_best_are_not_named() -> None:
    assert best_terms({"strong": 10.0, "weak": 1.0}, 6) == ["strong"]


def test_unknown_frequencies_and_odd_numbers_do_no_harm() -> None:
    assert rank_keywords({"a": 1}, {}, 1)["keywords"][0]["term"] == "a"
    assert rank_keywords({"a": 1}, {"a": 99}, 3)["keywords"][0]["score"] > 0
    assert rank_keywords({}, {}, 3) == {"keywords": []}
    with pytest.raises(Reject, match="at least one document"):
        rank_keywords({"a": 1}, {}, 0)
