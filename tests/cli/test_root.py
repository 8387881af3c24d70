"""The command itself: help, version, completion, misspelt words, global options, how every call ends."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import click
import pytest

import streammesh
from streammesh.cli import run
from streammesh.cli.endings import EXIT_CODES
from streammesh.cli.root import SECTIONS, root
from tests.cli.conftest import ROOT, Cli

GOLDEN = Path(__file__).parent / "golden"


def commands(group: click.Group, path: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], click.Command]]:
    context = click.Context(group)
    for name in group.list_commands(context):
        command = group.get_command(context, name)
        assert command is not None
        yield (*path, name), command
        if isinstance(command, click.Group):
            yield from commands(command, (*path, name))


ALL = list(commands(root))


def test_the_help_is_the_golden_text(cli: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "100")
    assert cli.ok("--help").out == (GOLDEN / "help.txt").read_text()


def test_the_help_documents_every_exit_code(cli: Cli) -> None:
    said = cli.ok("--help").out
    assert set(EXIT_CODES) == {0, 1, 2, 3, 4, 5, 6, 130, 143}
    for code, meaning in EXIT_CODES.items():
        assert f"  {code} " in said
        assert meaning in " ".join(said.split())


@pytest.mark.parametrize(("path", "command"), ALL, ids=[" ".join(path) for path, _ in ALL])
def test_every_command_explains_itself(cli: Cli, path: tuple[str, ...], command: click.Command) -> None:
    said = cli.ok(*path, "--help").out
    assert (command.help or "").splitlines()[0] in " ".join(said.split())
    for parameter in command.params:
        assert isinstance(parameter, click.Argument) or parameter.hidden or parameter.help, parameter  # type: ignore[attr-defined]
    if not isinstance(command, click.Group):
        assert "--json" in said


def test_every_command_of_the_issue_is_there() -> None:
    wanted = """agent enqueue call task.ls task.show task.wait task.cancel task.retry task.tail task.explain agents.ls
        agents.show agents.ping agents.drain caps.ls caps.pause caps.resume dead.ls dead.show dead.replay dead.rm info top
        keys doctor dev completion run.start run.ls run.show run.explain run.history run.signal run.wait run.cancel
        run.terminate run.pause run.resume"""
    assert {word.replace(".", " ") for word in wanted.split()} <= {" ".join(path) for path, _ in ALL}


def test_version(cli: Cli) -> None:
    assert cli.ok("--version").out == f"streammesh {streammesh.__version__}\n"


@pytest.mark.parametrize("arguments", [["--version"], ["--help"], ["completion", "bash"], ["task", "--help"]])
def test_what_must_be_fast_loads_nothing_but_click(arguments: list[str]) -> None:
    program = (
        "import sys; from streammesh.cli import run; code = run(sys.argv[1:]); "
        "heavy = {'redis', 'rich', 'tenacity', 'orjson', 'anyio', 'asyncio'} & set(sys.modules); sys.exit(str(heavy) if heavy else code)"
    )
    ended = subprocess.run([sys.executable, "-c", program, *arguments], capture_output=True, text=True, cwd=ROOT)
    assert ended.returncode == 0, ended.stderr


@pytest.mark.parametrize(
    ("typed", "offered"),
    [
        ("ta", "plain,task"),
        ("task ex", "plain,explain"),
        ("dead replay --dr", "plain,--dry-run"),
        ("info --js", "plain,--json"),
    ],
)
def test_completion_knows_commands_and_options_and_loads_nothing_but_click(typed: str, offered: str) -> None:
    program = (
        "import sys, atexit; from streammesh.cli import main\n"
        "atexit.register(lambda: 'redis' in sys.modules and print('redis was loaded'))\nmain()"
    )
    words = f"streammesh {typed}"
    asked = {"COMP_WORDS": words, "COMP_CWORD": str(len(words.split()) - 1), "_STREAMMESH_COMPLETE": "bash_complete"}
    ended = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, cwd=ROOT, env=asked | {"PATH": "/usr/bin"}
    )
    assert ended.stdout.strip() == offered


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_completion_scripts(cli: Cli, shell: str) -> None:
    assert f"_STREAMMESH_COMPLETE={shell}_complete" in cli.ok("completion", shell).out


@pytest.mark.parametrize(
    ("typed", "meant"), [(["enqeue"], "enqueue"), (["task", "explan", "x"], "explain"), (["info", "--jsno"], "--json")]
)
def test_a_misspelt_word_is_guessed(cli: Cli, typed: list[str], meant: str) -> None:
    outcome = cli(*typed)
    assert (outcome.code, outcome.out) == (2, "")
    assert outcome.err.startswith("error: ")
    assert meant in outcome.err
    assert "see: streammesh" in outcome.err


def test_without_a_command_the_help_goes_to_stderr(capsys: pytest.CaptureFixture[str]) -> None:
    assert run([]) == 2
    said = capsys.readouterr()
    assert said.out == ""
    assert said.err.startswith("Usage: streammesh")


def test_global_options_stand_before_or_after_the_command(cli: Cli) -> None:
    assert cli.ok("--json", "info", "--sample", "0").json["mesh"] == cli.namespace
    assert cli.ok("info", "--json", "--sample", "0").json["mesh"] == cli.namespace
    assert cli.ok("info", "--json", "--sample", "0", "-N", "elsewhere").json["mesh"] == "elsewhere"


def test_an_unreachable_server_is_exit_3_and_no_password_is_shown(cli: Cli) -> None:
    outcome = cli("info", url="redis://ada:hunter2@127.0.0.1:1/0")
    assert (outcome.code, outcome.out) == (3, "")
    assert "no answer from the server at redis://ada:***@127.0.0.1:1/0" in outcome.err
    assert "hunter2" not in outcome.err
    assert "Traceback" not in outcome.err


@pytest.mark.parametrize(
    ("url", "says"),
    [
        ("localhost:6379", "is no URL: expected something like redis://localhost:6379"),
        ("reds://localhost", "did you mean redis://?"),
        ("redis://localhost:port", "cannot be used"),
        ("redis://:hunter2@localhost:x", "cannot be used"),
    ],
)
def test_a_url_with_a_typo_is_exit_2(cli: Cli, url: str, says: str) -> None:
    outcome = cli("info", url=url)
    assert outcome.code == 2
    assert says in outcome.err
    assert "hunter2" not in outcome.err


@pytest.mark.parametrize(
    "arguments", [["-N", "Bad Name!", "info"], ["enqueue", "Bad Capability"], ["task", "show", "{}"]]
)
def test_a_name_outside_its_alphabet_is_exit_2(cli: Cli, arguments: list[str]) -> None:
    outcome = cli(*arguments)
    assert outcome.code == 2
    assert "is not usable: expected 1 to " in outcome.err


def test_a_server_that_evicts_may_be_looked_at_but_not_worked_with(cli: Cli, redis_server_that_evicts: str) -> None:
    assert cli("info", "--sample", "0", url=redis_server_that_evicts).code == 0
    outcome = cli("enqueue", "greet", url=redis_server_that_evicts)
    assert outcome.code == 3
    assert "CONFIG SET maxmemory-policy noeviction" in outcome.err


def test_a_fault_of_ours_is_one_line_and_with_v_the_traceback(cli: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    def stumble(*_: object, **__: object) -> None:
        raise ZeroDivisionError("oops")

    monkeypatch.setattr("streammesh.cli.info.headline", stumble)
    quiet, loud = cli("info"), cli("info", "-v")
    assert (quiet.code, loud.code) == (1, 1)
    assert "a fault in streammesh itself: ZeroDivisionError: oops" in quiet.err
    assert "Traceback" not in quiet.err
    assert "Traceback" in loud.err


def test_a_reader_that_has_seen_enough_is_no_error(cli: Cli) -> None:
    for n in range(3):
        cli.ok("enqueue", "greet", f"n:={n}")
    asked = [sys.executable, "-m", "streammesh", "-u", cli.url, "-N", cli.namespace, "task", "ls"]
    writer = subprocess.Popen(asked, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, cwd=ROOT)
    assert writer.stdout is not None
    assert writer.stderr is not None
    writer.stdout.close()
    assert writer.stderr.read() == ""
    writer.stderr.close()
    assert writer.wait(20) == 0


def test_colour_is_for_terminals_or_when_asked_for(cli: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    cli.ok("enqueue", "greet")
    assert "\x1b[" not in cli.ok("info", "--sample", "0").out
    assert "\x1b[" in cli.ok("info", "--sample", "0", "--color", "always").out
    monkeypatch.setenv("NO_COLOR", "1")
    assert "\x1b[" in cli.ok("info", "--sample", "0", "--color", "always").out
    assert "\x1b[" not in cli.ok("info", "--sample", "0", "--color", "auto").out


def test_the_environment_gives_defaults(cli: Cli, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    from streammesh.cli.session import Session

    secret = tmp_path / "url"
    secret.write_text("redis://from-file:1\n")
    for environment, expected in [
        ({}, ("embedded://.streammesh", "mesh")),
        ({"REDIS_URL": "redis://a"}, ("redis://a", "mesh")),
        ({"STREAMMESH_REDIS_URL_FILE": str(secret)}, ("redis://from-file:1", "mesh")),
        ({"STREAMMESH_REDIS_URL": "redis://b", "STREAMMESH_NAMESPACE": "other"}, ("redis://b", "other")),
    ]:
        for name, value in environment.items():
            monkeypatch.setenv(name, value)
        assert Session().settings() == expected
    monkeypatch.setenv("STREAMMESH_JSON", "1")
    assert cli.ok("info", "--sample", "0").json["mesh"] == cli.namespace


def test_every_command_has_one_module_in_one_section() -> None:
    names = [name for section in SECTIONS.values() for name in section]
    assert len(names) == len(set(names))
