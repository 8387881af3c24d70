"""The command line `streammesh`: agents, tasks and a look inside, for people and for scripts.

stdout carries data only; notices, progress and errors go to stderr. Every command knows `--json`. Exit codes are in
`endings`, the table of commands in `root`; each command is in a module of its noun. What a command needs beyond click is
imported when it runs, so that `--version`, `--help` and completion answer at once.
"""

from streammesh.cli.root import main, run

__all__ = ["main", "run"]
