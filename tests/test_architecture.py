"""The tree has the shape that it says, and each rule notices when it has not."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from tests import architecture
from tests.architecture import RULES

ROOT = Path(__file__).resolve().parents[1]
Rule = Callable[[Path], list[str]]

SOUND = {
    "streammesh/__init__.py": 'from streammesh.errors import MeshError\n\n__all__ = ["MeshError"]\n',
    "streammesh/errors.py": "class MeshError(Exception): ...\n",
    "streammesh/settings.py": "import os\n\ndef from_env(): return os.environ\n",
    "streammesh/store.py": "import redis\nfrom streammesh import errors\n",
    "streammesh/tasks.py": (
        "from streammesh.store import Store\n\nclass Tasks:\n"
        '    def claim(self): return "task_claim"\n\n__all__ = ["Tasks"]\n'
    ),
    "streammesh/timers.py": "",
    "streammesh/cli/__init__.py": "import os\nimport click\nfrom streammesh.cli import shown\nprint(os.environ)\n",
    "streammesh/cli/shown.py": "from streammesh import tasks\n",
    "streammesh/lua/prelude.lua": "-- Put before every script.\n",
    "streammesh/lua/task_claim.lua": (
        "#!lua flags=allow-oom\n-- Claims.\n-- KEYS 1 stream\n-- ARGV 1 agent\n-- Returns 'ok'\n"
        "-- Called by tasks.Tasks.claim\nreturn 'ok'\n"
    ),
    "workers/echo.py": "import json\nfrom streammesh import MeshError\nfrom workers.text import words\n",
    "ops/demo.py": "import streammesh.store\n",
}

#: (rule, file, text in it or "" for its end, what is put there instead)
BREAKS: list[tuple[Rule, str, str, str]] = [
    (architecture.imports_go_down_only, "streammesh/errors.py", "", "from streammesh.store import Store\n"),
    (architecture.imports_go_down_only, "streammesh/errors.py", "", "def late():\n    import streammesh.tasks\n"),
    (
        architecture.imports_go_down_only,
        "streammesh/errors.py",
        "",
        "if TYPE_CHECKING:\n    from streammesh import cli\n",
    ),
    (architecture.imports_go_down_only, "streammesh/timers.py", "", "from streammesh import tasks\n"),
    (architecture.imports_go_down_only, "streammesh/tasks.py", "", "from streammesh import MeshError\n"),
    (architecture.imports_go_down_only, "streammesh/tasks.py", "", "import streammesh\n"),
    (architecture.imports_go_down_only, "streammesh/newcomer.py", "", "import json\n"),
    (architecture.other_distributions_come_in_by_their_door, "streammesh/tasks.py", "", "import redis.asyncio\n"),
    (architecture.other_distributions_come_in_by_their_door, "streammesh/tasks.py", "", "from click import echo\n"),
    (architecture.other_distributions_come_in_by_their_door, "streammesh/store.py", "", "import requests\n"),
    (architecture.workers_use_the_public_interface_only, "workers/echo.py", "", "from streammesh.store import Store\n"),
    (architecture.workers_use_the_public_interface_only, "workers/echo.py", "", "from streammesh import Store\n"),
    (architecture.workers_use_the_public_interface_only, "workers/echo.py", "", "import redis\n"),
    (architecture.files_are_short, "streammesh/tasks.py", "", "#\n" * 400),
    (architecture.files_are_short, "streammesh/lua/task_claim.lua", "", "--\n" * 400),
    (architecture.files_are_named_for_what_they_hold, "streammesh/utils.py", "", ""),
    (architecture.files_are_named_for_what_they_hold, "tests/helpers/words.py", "", ""),
    (architecture.nothing_on_the_wire_is_executed, "streammesh/tasks.py", "", "import pickle\n"),
    (architecture.nothing_on_the_wire_is_executed, "workers/echo.py", "", "from marshal import loads\n"),
    (architecture.nothing_on_the_wire_is_executed, "ops/demo.py", "", "eval('1')\n"),
    (architecture.the_environment_is_read_in_two_places, "streammesh/tasks.py", "", "import os\nos.environ['A']\n"),
    (architecture.the_environment_is_read_in_two_places, "streammesh/tasks.py", "", "from os import getenv\n"),
    (architecture.the_environment_is_read_in_two_places, "streammesh/settings.py", "", "URL = os.environ['A']\n"),
    (architecture.scripts_say_what_they_take_and_who_calls_them, "streammesh/lua/task_claim.lua", "#!lua", "-- lua"),
    (architecture.scripts_say_what_they_take_and_who_calls_them, "streammesh/lua/task_claim.lua", "-- KEYS", "-- keys"),
    (architecture.scripts_say_what_they_take_and_who_calls_them, "streammesh/lua/task_claim.lua", "-- ARGV", "-- argv"),
    (architecture.scripts_say_what_they_take_and_who_calls_them, "streammesh/lua/task_claim.lua", "-- Returns", "--"),
    (architecture.scripts_say_what_they_take_and_who_calls_them, "streammesh/lua/task_claim.lua", "-- Called by", "--"),
    (architecture.scripts_say_what_they_take_and_who_calls_them, "streammesh/lua/task_claim.lua", "s.claim", "s.take"),
    (
        architecture.scripts_say_what_they_take_and_who_calls_them,
        "streammesh/lua/task_claim.lua",
        "by tasks",
        "by gone",
    ),
    (
        architecture.scripts_say_what_they_take_and_who_calls_them,
        "streammesh/tasks.py",
        '"task_claim"',
        '"task_settle"',
    ),
    (architecture.all_says_what_is_exported, "streammesh/__init__.py", '"MeshError"', '"MeshError", "Mesh"'),
    (architecture.all_says_what_is_exported, "streammesh/__init__.py", '"MeshError"', ""),
    (architecture.all_says_what_is_exported, "streammesh/__init__.py", "__all__", "_all"),
    (architecture.all_says_what_is_exported, "streammesh/tasks.py", '["Tasks"]', '["Tasks", "Store"]'),
]


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule.__name__)
def test_the_tree_keeps_the_rule(rule: Rule) -> None:
    assert rule(ROOT) == []


def test_every_level_and_every_door_is_used() -> None:
    """A name that is left over from an earlier shape would let a later module slip in unseen."""
    found = {unit for unit, _, _ in architecture.units(ROOT)}
    assert set().union(*architecture.LEVELS) <= found
    imported = {
        (target.partition(".")[0], unit)
        for unit, _, tree in architecture.units(ROOT)
        for _, target in architecture.imports(tree)
    }
    doors = {(name, unit) for name, modules in architecture.DOORS.items() for unit in modules}
    assert doors <= imported


@pytest.fixture
def sound(tmp_path: Path) -> Path:
    for name, text in SOUND.items():
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return tmp_path


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule.__name__)
def test_a_sound_tree_breaks_no_rule(rule: Rule, sound: Path) -> None:
    assert rule(sound) == []


@pytest.mark.parametrize(
    ("rule", "name", "old", "new"), BREAKS, ids=[f"{b[0].__name__}-{n}" for n, b in enumerate(BREAKS)]
)
def test_a_rule_notices_when_it_is_broken(rule: Rule, name: str, old: str, new: str, sound: Path) -> None:
    path = sound / name
    before = path.read_text() if path.exists() else ""
    assert old in before
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(before.replace(old, new, 1) if old else before + new)
    assert len(rule(sound)) >= 1


def test_every_rule_has_been_seen_to_break() -> None:
    assert {rule for rule, _, _, _ in BREAKS} == set(RULES)
