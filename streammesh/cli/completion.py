"""`completion`: the script that teaches a shell the commands and options."""

from __future__ import annotations

import click

from streammesh.cli.session import Session, command

__all__ = ["completion_command"]


@command(epilog='Example: eval "$(streammesh completion bash)", in ~/.bashrc to keep it.')
@click.argument("shell", type=click.Choice(["bash", "zsh", "fish"]))
def completion(session: Session, shell: str) -> None:
    """Print the completion script of SHELL."""
    from click.shell_completion import get_completion_class

    from streammesh.cli.root import root

    kind = get_completion_class(shell)
    assert kind is not None
    session.output.line(kind(root, {}, "streammesh", "_STREAMMESH_COMPLETE").source())


completion_command = completion
