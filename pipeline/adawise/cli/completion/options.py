"""The options of `adawise completion`."""

from __future__ import annotations

from typing import Literal

from pydantic import Field
from pydantic_settings import CliPositionalArg
from typing_extensions import override

from adawise.cli.command import Command


class CompletionCommand(Command):
    """Print a script with which a shell completes commands, options, their values and file names.

    The script is for this version: load it again after an upgrade. It starts no program, so completion is fast.
    """

    name = "completion"
    groups = ()
    examples = (
        ("bash: write to ~/.adawise.bash, and source it in ~/.bashrc", "completion bash"),
        ("zsh: write to _adawise in a folder of $fpath", "completion zsh"),
        ("fish: write to ~/.config/fish/completions/adawise.fish", "completion fish"),
    )

    shell: CliPositionalArg[Literal["bash", "zsh", "fish"]] = Field(description="the shell to complete in")

    @override
    def call(self) -> int:
        """Print the completion script."""
        from adawise.cli.completion.run import script

        print(script(self.shell))
        return 0
