"""The options of `adawise completion`."""

from __future__ import annotations

from typing import Literal

from pydantic import Field
from pydantic_settings import CliPositionalArg
from typing_extensions import override

from adawise.cli.command import Command


class CompletionCommand(Command):
    """Print what makes a shell complete commands, options, their values and the names of files.

    The text is for this version: load it anew after an upgrade. Completing asks no program, so it is as quick as the
    shell.
    """

    name = "completion"
    groups = ()
    examples = (
        ("bash: into ~/.adawise.bash, which ~/.bashrc sources", "completion bash"),
        ("zsh: into _adawise in a folder of $fpath", "completion zsh"),
        ("fish: into ~/.config/fish/completions/adawise.fish", "completion fish"),
    )

    shell: CliPositionalArg[Literal["bash", "zsh", "fish"]] = Field(description="for which shell")

    @override
    def call(self) -> int:
        """Print the completion script."""
        from adawise.cli.completion.run import script

        print(script(self.shell))
        return 0
