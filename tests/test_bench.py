"""The bench runs, all of it, and its arithmetic is right. What it measures here is too little to mean anything."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from ops.bench.__main__ import GROUPS, main
from ops.bench.figures import Figure, as_json, table
from ops.bench.size import TINY


@pytest.mark.parametrize("group", GROUPS)
def test_every_group_runs_on_real_processes_and_loses_nothing(group: str) -> None:
    if group == "dbos":
        pytest.importorskip("dbos", reason="DBOS is not installed: then the group says so, and has no figures")
    figures = GROUPS[group](TINY, lambda line: None)
    assert figures
    for figure in figures:
        assert len(figure.values) >= 1
        assert figure.value >= 0
        if figure.name.startswith(("lost", "settled twice", "records after")):
            assert figure.met, figure


def test_what_is_not_installed_is_left_out_and_said(monkeypatch: pytest.MonkeyPatch) -> None:
    said: list[str] = []
    monkeypatch.setattr("ops.bench.beside.find_spec", lambda name: None)
    assert GROUPS["dbos"](TINY, said.append) == []
    assert "pip install 'streammesh[bench]'" in said[0]


def test_a_ratio_is_the_median_of_the_rounds_own_ratios() -> None:
    figure = Figure.against("ours", "/s", [50, 10, 30], "bare", [100, 10, 100], least=0.5)
    assert (figure.value, figure.ratio, figure.met, figure.target) == (30, 0.5, True, ">= 0.5 x bare")
    assert Figure.against("wait", "ms", [3.0], "bare", [1.0], most=1.6).met is False


def test_a_figure_is_met_or_missed_by_its_median() -> None:
    assert Figure.at_most("cost", "s", [0.1, 0.2, 9.0], 0.2).met
    assert Figure.at_least("rate", "/s", [1, 2, 100], 40).met is False
    assert Figure.shown("told", "/s", [1]).met is None


def test_the_table_and_the_json_say_the_same() -> None:
    groups = {"waits": [Figure.against("ours", "ms", [2.0, 3.0], "bare", [1.0, 1.0], most=1.6)]}
    lines = table(groups).splitlines()
    assert lines[0].split() == ["figure", "median", "spread", "ratio", "target"]
    assert lines[2].split() == ["ours", "2.5", "ms", "2..3", "2.50", "<=", "1.6", "x", "bare", "MISSED"]
    (said,) = as_json(groups)["waits"]
    assert (said["value"], said["ratio"], said["met"], said["values"]) == (2.5, 2.5, False, (2.0, 3.0))


def test_the_command_writes_json_and_its_exit_code_says_whether_all_is_met(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "figures.json"
    code = main(["--tiny", "enqueue", "--json", str(path)])
    figures = json.loads(path.read_text())["figures"]["enqueue"]
    assert code == int(any(figure["met"] is False for figure in figures))
    assert "enqueue_many" in capsys.readouterr().out


@pytest.mark.parametrize("words", [["nonsense"], ["--rounds", "0"]])
def test_a_wrong_command_line_is_refused_with_what_is_right(
    words: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as refusal:
        main(words)
    assert refusal.value.code == 2
    said = capsys.readouterr().err
    assert "throughput" in said or "1 or more" in said
