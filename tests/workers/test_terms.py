"""Words and the terms they count for."""

import pytest

from workers.text.terms import fold, overlap, terms, words


@pytest.mark.parametrize(
    ("word", "term"),
    [
        ("Files", "file"),
        ("classes", "class"),
        ("queries", "query"),
        ("searches", "search"),
        ("caches", "cache"),
        ("sizes", "size"),
        ("schemas", "schema"),
        ("macros", "macro"),
        ("aliases", "alias"),
        ("alias", "alias"),
        ("indices", "index"),
        ("class", "class"),
        ("status", "status"),
        ("analysis", "analysis"),
        ("series", "series"),
        ("bytes", "byte"),
        ("functools", "functools"),
        ("URLs", "url"),
        ("HTTP", "http"),
        ("StringIO", "StringIO"),
        ("BZ2File", "BZ2File"),
        ("__future__", "future"),
        ("base_events", "base_events"),
        ("heap's", "heap"),
        ("Über", "über"),
        ("the", ""),
        ("don't", ""),
        ("x", ""),
        ("state-of-the-art", ""),
    ],
)
def test_what_a_word_counts_for(word: str, term: str) -> None:
    assert fold(word) == term


def test_terms_keep_the_order_of_the_text_and_drop_stop_words() -> None:
    assert terms("The heaps of a Queue are heaps.") == ["heap", "queue", "heap"]


def test_a_dotted_name_is_one_word_and_an_address_none() -> None:
    assert words("Import os.path from https://example.org/a/b?c=d e.g. now.") == [
        "Import",
        "os.path",
        "from",
        "e",
        "g",
        "now",
    ]


def test_overlap_is_a_share_of_the_smaller_set() -> None:
    assert overlap({"a", "b"}, {"b", "c", "d"}) == 0.5
    assert overlap({"a"}, {"a", "b"}) == 1.0
    assert overlap(set(), {"a"}) == 0.0
