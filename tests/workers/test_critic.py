"""Numbers from 0.0 to 1.0 that say how good a summary is."""

import pytest

from workers.critic import clarity, coverage, criticize, length, redundancy

TEXT = (
    "The heap keeps items in order. The heap is a tree of items. A heap of items has one root. Bread is baked at home."
)
GOOD = ["The heap keeps items in order."]
POOR = ["Bread is baked at home."]


def test_a_summary_that_says_what_the_text_says_scores_better() -> None:
    assert criticize(GOOD, TEXT)["overall"] > criticize(POOR, TEXT)["overall"]
    assert coverage(GOOD, TEXT) > coverage(POOR, TEXT)
    assert coverage([TEXT], TEXT) == 1.0


def test_coverage_never_falls_when_a_sentence_is_added() -> None:
    assert coverage(GOOD + POOR, TEXT) >= coverage(GOOD, TEXT)


def test_redundancy_is_that_of_the_worst_pair() -> None:
    assert redundancy(GOOD) == 0.0
    assert redundancy([*GOOD, *GOOD, *POOR]) == 1.0
    assert redundancy([*GOOD, *POOR]) == 0.0
    assert 0.0 < redundancy(["The heap keeps items.", "The heap grows tall."]) < 1.0


def test_clarity_is_of_sentences_that_stand_alone_and_come_early() -> None:
    text = (
        "The first sentence says what it is about. However, it depends on the weather.\n\npush(): Push item onto heap."
    )
    first, second, third = (
        "The first sentence says what it is about.",
        "However, it depends on the weather.",
        "push(): Push item onto heap.",
    )
    assert clarity([first], text) == 1.0
    assert clarity([first], text) > clarity([third], text) > clarity([second], text) > 0.0
    assert clarity([first, "The text does not say this at all."], text) == 0.5
    assert clarity([], text) == 0.0


def test_length_is_best_between_a_stub_and_an_essay() -> None:
    text = "word " * 1_000
    scores = [length(["word " * n], text) for n in (0, 5, 20, 90, 180, 900)]
    assert scores == [0.0, 0.25, 1.0, 1.0, 0.5, 0.1]
    assert length(["All of a short text."], "All of a short text.") == 1.0


@pytest.mark.parametrize("summary", [[], GOOD, POOR, [*GOOD, *GOOD], [TEXT], ["..."], ["x " * 5_000]])
@pytest.mark.parametrize("text", ["", TEXT, "...", "the of and"])
def test_all_scores_are_shares(summary: list[str], text: str) -> None:
    scores = criticize(summary, text)
    assert set(scores) == {"coverage", "redundancy", "length", "clarity", "overall"}
    assert all(0.0 <= score <= 1.0 for score in scores.values())


def test_an_empty_summary_is_worth_nothing_unless_there_is_nothing_to_say() -> None:
    assert criticize([], TEXT)["overall"] == 0.0
    assert criticize([], "")["overall"] == 1.0
