"""What is declared is what is there: dependencies, version, files of the wheel, commands that can be run."""

from __future__ import annotations

import os
import re
import tomllib
from pathlib import Path
from typing import Any

import pytest

import streammesh
from tests import architecture

ROOT = Path(__file__).resolve().parents[1]
# cronsim: every agent fires schedules, so every agent reckons when; it is small and drags nothing in.
CORE = {"redis", "orjson", "tenacity", "click", "anyio", "cronsim", "tzdata"}
NOT_IMPORTED = {
    "pydantic": "a model is known by its methods, so that nobody pays for the import who has none",
    "tzdata": "zones for zoneinfo, where the system has none",
    "dbos": "only ops/bench measures beside it",
}


@pytest.fixture(scope="module")
def project() -> dict[str, Any]:
    declared: dict[str, Any] = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    return declared


def names(requirements: list[str]) -> set[str]:
    return {re.match(r"[\w-]+", requirement)[0] for requirement in requirements}  # type: ignore[index]


def test_the_core_install_stays_small(project: dict[str, Any]) -> None:
    assert names(project["dependencies"]) == CORE


def test_every_distribution_that_is_imported_is_declared_and_the_other_way_round(project: dict[str, Any]) -> None:
    extras = {
        extra: wanted for extra, wanted in project["optional-dependencies"].items() if extra not in ("all", "dev")
    }
    declared = names(project["dependencies"]) | {name for wanted in extras.values() for name in names(wanted)}
    doors = set(architecture.DOORS) - {"pytest"}  # the plugin runs inside pytest
    assert doors <= declared
    assert declared - doors == set(NOT_IMPORTED)


def test_all_and_dev_leave_nothing_out(project: dict[str, Any]) -> None:
    extras = project["optional-dependencies"]
    [everything] = extras["all"]
    assert set(re.findall(r"[\w-]+", everything)) == {"streammesh", *extras} - {"all", "dev", "bench"}
    assert "streammesh[all]" in extras["dev"]


def test_the_version_is_one_and_the_same(project: dict[str, Any]) -> None:
    assert streammesh.__version__ == project["version"]


def test_the_package_says_that_it_is_typed_and_carries_its_scripts() -> None:
    package = Path(streammesh.__file__).parent
    assert (package / "py.typed").exists()
    assert list((package / "lua").glob("task_*.lua"))


@pytest.mark.parametrize("command", ["ops/bootstrap", "ops/test", "ops/demo", ".ci/run"])
def test_commands_can_be_run(command: str) -> None:
    assert os.access(ROOT / command, os.X_OK)


def test_every_public_name_is_there_when_it_is_asked_for() -> None:
    """The names are loaded on first use, so that a misspelt one would be noticed by its first user."""
    assert all(getattr(streammesh, name) is not None for name in streammesh.__all__)
    assert sorted(streammesh.__all__) == streammesh.__all__
    with pytest.raises(AttributeError, match="nothing"):
        _ = streammesh.nothing
