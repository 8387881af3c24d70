"""Lists for readers are complete: the README's commands, exit codes and errors; the modules of the package; the scripts."""

from __future__ import annotations

import inspect
import re
from pathlib import Path

import click

import streammesh
from streammesh import errors
from streammesh.cli.endings import EXIT_CODES
from streammesh.cli.root import root

ROOT = Path(__file__).resolve().parents[1]
TEXT = (ROOT / "README.md").read_text(encoding="utf-8")
CHAPTER = TEXT[TEXT.index("\n## Commands, exit codes, errors") : TEXT.index("\n## Figures")]


def rows(head: str) -> list[list[str]]:
    """The cells of the chapter's table that begins with ``head``."""
    table = CHAPTER[CHAPTER.index(f"| {head} |") :].partition("\n\n")[0]
    return [[cell.strip() for cell in row.strip("|").split("|")] for row in table.splitlines()[2:]]


def test_every_command_is_in_the_list() -> None:
    """Of groups with a row of their own, also what is in them."""
    context = click.Context(root)
    shown = "\n".join(" ".join(row) for row in rows("command"))
    words = set(re.findall(r"`(?:streammesh )?([\w-]+)`", shown))
    assert words >= {name for name, command in root.commands.items() if not command.hidden}
    for name, command in root.commands.items():
        if isinstance(command, click.Group) and name != "task":
            row = next(line for line in shown.splitlines() if re.search(rf"`(streammesh )?{name}`", line))
            assert set(re.findall(r"`([\w-]+)`", row)) >= set(command.list_commands(context)) - {name}, name


def test_the_exit_codes_are_those_of_the_command_line() -> None:
    assert rows("exit code") == [[str(code), text] for code, text in EXIT_CODES.items()]


def test_every_error_is_in_the_table_under_its_own() -> None:
    """And all of them in the tree at the head of their module."""
    told = {kind: re.findall(r"`(\w+)`", cell) for kind, cell in rows("error")}
    for kind in vars(errors).values():
        if not inspect.isclass(kind) or not issubclass(kind, errors.MeshError) or kind is errors.MeshError:
            continue
        assert kind.__name__ in errors.__all__
        assert re.search(rf"^ +{kind.__name__} ", errors.__doc__ or "", re.MULTILINE), kind.__name__
        branch = next(one for one in kind.__mro__ if one.__bases__[0] is errors.MeshError)
        row = next(row for row in told if f"`{branch.__name__}`" in row)
        assert kind is branch or kind.__name__ in told[row], kind.__name__


def test_every_module_is_in_the_layout_of_the_package() -> None:
    layout = re.findall(r"^    .*$", inspect.getdoc(streammesh) or "", re.MULTILINE)
    named = {word for row in layout for word in row.strip().partition("  ")[0].split()}
    there = {
        path.stem for path in (ROOT / "streammesh").iterdir() if path.suffix == ".py" or (path / "__init__.py").exists()
    }
    assert {name for name in there if not name.startswith("_")} <= named


def test_every_script_is_in_the_readme_of_the_scripts() -> None:
    told = set(re.findall(r"\w+", (ROOT / "streammesh" / "lua" / "README.md").read_text(encoding="utf-8")))
    scripts = {path.stem for path in (ROOT / "streammesh" / "lua").glob("*.lua")}
    assert {name for name in scripts if not name.startswith("prelude_")} <= told
