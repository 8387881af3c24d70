"""README.md is true: its files are saved, its commands typed, its outputs compared, on real servers.

`tests.readme` says how a block is read. What cannot run here is held to what it stands on: Compose lines to the real Compose, `./ops/…`
and other long programs to their own help, the layout of keys to the module that makes them.
"""

from __future__ import annotations

import inspect
import os
import re
import shlex
import shutil
import subprocess
import sys
import tomllib
from collections.abc import Callable
from importlib.metadata import entry_points
from pathlib import Path

import click
import pytest

from streammesh import keys
from streammesh.cli.root import root
from tests import readme
from tests.readme import Block, Line, Shell
from tests.test_compose import compose

ROOT = Path(__file__).resolve().parents[1]
TEXT = (ROOT / "README.md").read_text(encoding="utf-8")
BLOCKS = readme.blocks(TEXT)

#: How a line begins that is not run here -> what it is held to instead.
HELD: dict[str, Callable[[Line], None]] = {}


def held(beginning: str) -> Callable[[Callable[[Line], None]], Callable[[Line], None]]:
    def declare(check: Callable[[Line], None]) -> Callable[[Line], None]:
        HELD[beginning] = check
        return check

    return declare


def held_by(line: Line) -> Callable[[Line], None] | None:
    return next((check for beginning, check in HELD.items() if line.command.startswith(beginning)), None)


# -- what is run


def environment(folder: Path) -> dict[str, str]:
    """PATH as after `. .venv/bin/activate`, in a terminal that nobody has set anything in."""
    bin = folder / "bin"
    bin.mkdir()
    real = shutil.which("redis-cli")
    python = shlex.quote(sys.executable)
    cli = f"{shlex.quote(real)} -e --no-raw" if real else f"{python} -m tests.redis_cli"
    plugin = not any(point.name == "streammesh" for point in entry_points(group="pytest11"))
    for name, text in {
        "python": f'exec {python} "$@"',
        "streammesh": f'exec {python} -m streammesh "$@"',
        "rq": f'exec {python} -m rq.cli "$@"',
        # The README's lines are for the default port; here there is only the socket of `dev`.
        "redis-cli": f'case "$1" in -s) exec {cli} "$@";; esac; exec {cli} -s .streammesh/valkey.sock "$@"',
    }.items():
        (bin / name).write_text(f"#!/bin/sh\n{text}\n")
        (bin / name).chmod(0o755)
    bare = {name: text for name, text in os.environ.items() if not re.match("STREAMMESH_|REDIS|PYTEST|PYTHON", name)}
    return bare | {
        "PATH": f"{bin}{os.pathsep}{bare['PATH']}",
        "PYTHONPATH": str(ROOT),
        "STREAMMESH_TIME": "relative",  # as on a terminal
        "NO_COLOR": "1",
        **({"PYTEST_PLUGINS": "streammesh.testing"} if plugin else {}),
    }


def save(found: list[Block], folder: Path) -> None:
    for block in found:
        if block.kind == "python":
            assert re.fullmatch(r"\w+\.py", block.name), f"line {block.number}: the block must begin with `# name.py`"
            (folder / block.name).write_text(block.text, encoding="utf-8")


def typed(found: list[Block]) -> list[Line]:
    return [line for block in found if block.kind in ("sh", "console") for line in block.lines()]


def follow(found: list[Block], folder: Path) -> dict[int, str]:
    """Do what the blocks say; returns line -> what was wrong there."""
    work = folder / "work"
    work.mkdir()
    save(found, work)
    shell = Shell(work, environment(folder))
    wrong: dict[int, str] = {}
    try:
        for line in typed(found):
            if held_by(line):
                continue
            if line.serves:
                try:
                    shell.serve(line.command)
                except AssertionError as error:
                    wrong[line.number] = str(error)
                continue
            printed, code = shell.type(line.command)
            if code != line.code:
                wrong[line.number] = f"{line.command}\nexit code {code}, not {line.code}; it printed:\n{printed}"
            elif line.expected is not None and not readme.looks_like(printed, line.expected):
                wrong[line.number] = f"{line.command}\nprinted:\n{printed}\nthe README shows:\n{line.expected}"
    finally:
        codes = shell.close()
    numbers = {line.command: line.number for line in typed(found)}
    for command, code in codes.items():
        if code != readme.DRAINED:
            wrong.setdefault(numbers[command], f"{command}\ndid not drain in order: exit code {code}")
    return wrong


LINES = typed(BLOCKS)


# -- what is held to something else


def helped(program: list[str], options: list[str]) -> None:
    """A program that would take too long: its help must know the options."""
    done = subprocess.run(
        [*program, "--help"], capture_output=True, text=True, cwd=ROOT, timeout=60, check=True,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
    )  # fmt: skip
    for option in options:
        assert re.search(rf"(?<![\w-]){re.escape(option)}\b", done.stdout), f"{option} is not in its help"


@held("./ops/demo")
def _demo(line: Line) -> None:
    """Run by tests/test_demo.py. What it prints is in its source."""
    assert os.access(ROOT / "ops" / "demo", os.X_OK)
    source = (ROOT / "ops" / "demo.py").read_text()
    heads = re.search("┃.*┃", line.expected or "")
    for head in heads[0].strip("┃").split("┃") if heads else ():
        assert f'"{head.strip()}"' in source
    if line.expected:
        for whom in re.findall(r"SIGKILL to librarian\.\d+, (.+)", line.expected):
            assert f'("{whom}", ' in source
        assert "SIGKILL to [bold]{agent.id}[/], {whom}" in source


@held("./ops/test")
def _test(line: Line) -> None:
    """We are in it."""
    program, *arguments = line.words
    assert os.access(ROOT / program, os.X_OK)
    for argument in arguments:
        assert "/" not in argument or (ROOT / argument).exists()


@held("./ops/bench/run")
def _bench(line: Line) -> None:
    assert os.access(ROOT / "ops" / "bench" / "run", os.X_OK)
    helped([sys.executable, "-m", "ops.bench"], [word for word in line.words[1:] if word[0] == "-" or word.isalpha()])


@held("python -m tests.chaos")
def _chaos(line: Line) -> None:
    helped([sys.executable, "-m", "tests.chaos"], [word for word in line.words[3:] if word[0] == "-"])


@held(". .venv/bin/activate")
def _activate(line: Line) -> None:
    """Made by ops/bootstrap, which tests/test_bootstrap.py runs."""
    assert "venv=$root/.venv" in (ROOT / "ops" / "bootstrap").read_text()


@held("docker compose")
def _compose(line: Line) -> None:
    _, _, verb, *arguments = line.words
    services = compose("config", "--services").stdout.split()
    options = compose(verb, "--help").stdout
    if verb == "exec":
        service, *command = arguments
        assert service in services
        assert command[0] in ("streammesh", "valkey-cli")
        if command[0] == "streammesh":
            assert known(command[1:]) == ""
        return
    for argument in arguments:
        if argument.startswith("-"):
            assert re.search(rf"(?<![\w-]){argument}\b", options), f"docker compose {verb} knows no {argument}"
        else:
            service, _, count = argument.partition("=")
            assert service in services
            assert count.isdigit()


def known(arguments: list[str]) -> str:
    """What is wrong with a command line of streammesh; '' when every word that is a command or an option is one."""
    found: click.Command = root
    context = click.Context(root)
    own = {opt for parameter in root.params for opt in parameter.opts}
    for word in arguments:
        if word.startswith("-"):
            if word not in own | {opt for parameter in found.get_params(context) for opt in parameter.opts}:
                return f"{found.name} has no option {word}"
        elif isinstance(found, click.Group):
            more = found.get_command(context, word)
            if more is None:
                return f"{found.name} has no command {word}"
            found = more
    return ""


# -- line by line


@pytest.fixture(scope="module")
def wrong(tmp_path_factory: pytest.TempPathFactory) -> dict[int, str]:
    """The README from top to bottom, once."""
    return follow(BLOCKS, tmp_path_factory.mktemp("readme"))


def label(line: Line) -> str:
    return f"{line.number}: {line.command[:60]}"


@pytest.mark.timeout(240)
@pytest.mark.parametrize("line", [line for line in LINES if not held_by(line)], ids=label)
def test_the_line_does_what_the_readme_says(line: Line, wrong: dict[int, str]) -> None:
    assert line.number not in wrong, wrong[line.number]


@pytest.mark.parametrize("line", [line for line in LINES if held_by(line)], ids=label)
def test_the_line_could_be_run(line: Line) -> None:
    check = held_by(line)
    assert check
    check(line)


# -- the text between the blocks

SPANS = [span for span in readme.spans(TEXT) if span.startswith("streammesh ")]


@pytest.mark.parametrize("span", SPANS)
def test_commands_in_the_text_are_commands(span: str) -> None:
    assert known(shlex.split(span.replace("…", ""))[1:]) == ""


@pytest.mark.parametrize("span", [span for span in readme.spans(TEXT) if span.startswith("redis-cli ")])
def test_redis_cli_lines_in_the_text_are_like_those_in_a_block(span: str) -> None:
    """Another capability, perhaps, but a line whose like is run."""
    shape = [re.sub(r"tasks:\w+", "tasks:C", word) for word in shlex.split(span)[:3]]
    assert any([re.sub(r"tasks:\w+", "tasks:C", word) for word in line.words[:3]] == shape for line in LINES)


def test_extras_in_the_text_exist() -> None:
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]
    named = set(re.findall(r"pip install '\.\[(\w+)\]'", TEXT))
    assert named
    assert named <= set(extras)


def test_files_and_folders_in_the_text_exist() -> None:
    for span in readme.spans(TEXT):
        if re.fullmatch(r"(\./)?(ops|tests|workers|streammesh|lua|cli)/[\w/.]*|compose\.yaml|LICENSE", span):
            places = [ROOT / span, ROOT / "streammesh" / span]
            assert any(place.exists() for place in places), span


def test_names_of_the_package_in_the_text_exist() -> None:
    """Rooms in the table of rooms, and `streammesh.x` anywhere."""
    table = TEXT[TEXT.index("| room |") : TEXT.index("One verb on three floors")]
    rooms = {span.rstrip("/") for row in table.splitlines()[2:] for span in re.findall(r"`([^`]+)`", row.split("|")[1] if "|" in row else "")}  # fmt: skip
    rooms |= set(re.findall(r"`(?:python -m )?streammesh\.(\w+)", TEXT))
    assert len(rooms) > 15
    for room in rooms:
        assert (ROOT / "streammesh" / room).is_dir() or (ROOT / "streammesh" / f"{room}.py").is_file(), room


def test_the_layout_of_keys_is_that_of_the_module() -> None:
    """To the letter: it is that module's own table."""
    shown = next(block.text for block in BLOCKS if block.kind == "text")
    assert shown.splitlines() == re.findall(r"^    (\{mesh\}.*)$", inspect.getdoc(keys) or "", re.MULTILINE)


def test_there_is_one_place_for_figures() -> None:
    assert len(re.findall(r"<!-- figures: .* -->\n(.*\n)*?<!-- end of figures -->", TEXT)) == 1


def test_every_kind_of_block_is_known() -> None:
    assert {block.kind for block in BLOCKS} == {"python", "sh", "console", "text"}


# -- the test of the test: a README that is wrong is found out

GOOD = """
```python
# tiny.py
from streammesh import Agent

agent = Agent("tiny")

@agent.capability("double")
async def double(number: int) -> int:
    return number * 2
```

```sh
streammesh dev --app tiny:agent
```

```console
$ streammesh call double number:=21
42
$ streammesh call double word=no --id n-1   # exit 1
n-1 dead: …
$ redis-cli XLEN '{mesh}:tasks:double'
(integer) 0
```
"""

#: The same with a flaw in every line but the first two.
BAD = """
```sh
streammesh dev --app tiny:agent
```

```console
$ streammesh call double number:=21
42
$ streammesh call double number:=22
43
$ streammesh call double number:=23
46
and more
$ streammesh call duoble number:=21 --timeout 300ms
…
$ streammesh call double word=no --id n-1   # exit 5
$ streammesh call double number:=2 --tiemout 3s
4
$ redis-cli XLENGTH '{mesh}:tasks:double'
…
$ redis-cli XLEN '{mesh}:caps'
…
```

```sh
streammesh call triple number:=4 --timeout 300ms
streammesh agent --app tiny:agnet
nonsense
```
"""


def test_a_small_readme_that_is_right_passes(tmp_path: Path) -> None:
    assert follow(readme.blocks(GOOD), tmp_path) == {}


def test_every_flaw_of_a_readme_is_found(tmp_path: Path) -> None:
    tiny = readme.blocks(GOOD)[0]
    flawed = readme.blocks(BAD)
    good = [line.number for line in typed(flawed)[:2]]
    found = follow([tiny, *flawed], tmp_path)
    assert [line.number for line in typed(flawed) if line.number not in found] == good, found


def test_outputs_are_compared_loosely_and_not_more_so() -> None:
    """What varies may; what is said may not."""
    same = readme.looks_like
    assert same("on librarian.2 after 0.3s, 1.5s ago", "on librarian.1 after 12s, 3m04s ago")
    assert same('{"a": 1}', '{\n  "a": 1\n}')
    assert same("1795360372314-0 1a203d10d7eff4dc21f9baf", "1795360364598-7 00003d10d7eff4dc21f9baf")
    assert same("one\ntwo\nthree\n", "one\n…\nthree")
    assert not same("one\ntwo\n", "one")
    assert not same("succeeded", "failed")
    assert not same("3 removed", "2 removed")
    assert not same("on reader.1", "on librarian.1")
