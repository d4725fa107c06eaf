"""Completion, asked of the shells themselves."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Mapping
from pathlib import Path

import pytest
import shtab

from adawise.__main__ import main
from adawise.cli import COMMANDS
from adawise.cli.completion import program_parser
from tests.deadlines import DEADLINE_S

_BASH = """
source "$1"; shift
COMP_WORDS=("$@"); COMP_CWORD=$(($# - 1))
_shtab_adawise adawise "${COMP_WORDS[COMP_CWORD]}" "${COMP_WORDS[COMP_CWORD-1]}"
printf '%s\\n' "${COMPREPLY[@]}"
"""

# A terminal of its own, in which a Tab is pressed once the line editor is there, which its prompt says.
_ZSH = r"""
zmodload zsh/zpty
zpty shell zsh -f -i
zpty -w shell "PROMPT=\$(printf '\074P\076')"
zpty -r shell output '*<P>*'
zpty -w shell "autoload -Uz compinit; compinit -D -u; source ${(q)1}; compdef _shtab_adawise adawise"
zpty -r shell output '*<P>*'
zpty -w shell "bindkey '^I' list-choices; LISTMAX=0; stty columns 160 rows 400"
zpty -r shell output '*<P>*'
zpty -w -n shell "$2"$'\t'
zpty -w -n shell $'\x15'"print -r -- READY''2"$'\n'
zpty -r shell output '*READY2*'
print -r -- $output
"""


@pytest.fixture(scope="module")
def scripts(tmp_path_factory: pytest.TempPathFactory) -> Mapping[str, Path]:
    """What `adawise completion SHELL` prints, as files."""
    folder = tmp_path_factory.mktemp("completion")
    files = {shell: folder / f"adawise.{shell}" for shell in ("bash", "zsh", "fish")}
    parser = program_parser()
    for shell, path in files.items():
        path.write_text(shtab.complete(parser, shell=shell))
    return files


def output_of(shell: str, *arguments: str, folder: Path | None = None) -> str:
    if shutil.which(shell) is None:
        pytest.skip(f"no {shell} on PATH")
    done = subprocess.run([shell, *arguments], capture_output=True, text=True, timeout=DEADLINE_S, cwd=folder)
    assert done.returncode == 0, done.stderr
    return done.stdout


QUESTIONS = [
    ("adawise ru", {"run"}),
    ("adawise dlq ", {"list", "show", "replay"}),
    ("adawise config ", {"init", "show"}),
    ("adawise run --kafka.bootstrap", {"--kafka.bootstrap-servers"}),
    ("adawise run --search.strategy ", {"warm", "botorch", "scratch", "grid", "fixed"}),
    ("adawise run --kafka.topic yard --log.form", {"--log.format"}),
    ("adawise completion ", {"bash", "zsh", "fish"}),
]


@pytest.mark.parametrize(("line", "words"), QUESTIONS)
def test_bash_completes_commands_options_and_values(line: str, words: set[str], scripts: Mapping[str, Path]) -> None:
    output = output_of("bash", "-c", _BASH, "bash", str(scripts["bash"]), *line.split(" ")).split()
    assert words <= set(output)
    assert [word for word in output if not word.startswith(line.rpartition(" ")[2])] == []


@pytest.mark.parametrize(("line", "words"), QUESTIONS)
def test_fish_completes_commands_options_and_values(line: str, words: set[str], scripts: Mapping[str, Path]) -> None:
    question = f'source {scripts["fish"]}; complete -C "{line}"'
    fields = {answer.partition("\t")[0] for answer in output_of("fish", "--no-config", "-c", question).splitlines()}
    assert words <= fields


@pytest.mark.parametrize(("line", "words"), QUESTIONS)
def test_zsh_completes_commands_options_and_values(line: str, words: set[str], scripts: Mapping[str, Path]) -> None:
    output = output_of("zsh", "-f", "-c", _ZSH, "zsh", str(scripts["zsh"]), line)
    assert all(word in output for word in words), output


def test_files_are_completed_where_a_file_is_meant(scripts: Mapping[str, Path], tmp_path: Path) -> None:
    (tmp_path / "pictures").mkdir()
    for line in ("adawise produce pict", "adawise run --model.card pict", "adawise verify pict"):
        output = output_of("bash", "-c", _BASH, "bash", str(scripts["bash"]), *line.split(" "), folder=tmp_path)
        assert output.split() == ["pictures"], line


def test_every_command_is_there_with_its_options() -> None:
    text = program_parser().format_help()
    assert all(f"{name.split()[0]} " in text for name in COMMANDS)


def test_it_is_printed_whatever_is_wrong_with_the_settings(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "adawise.toml").write_text("[kafka\n")
    assert main(["completion", "bash"]) == 0
    assert capsys.readouterr().out.endswith("complete -o bashdefault -F _shtab_adawise adawise\n")
    assert main(["completion", "sh"]) == 2
    assert "SHELL = 'sh'" in capsys.readouterr().err
    assert main(["completion"]) == 2
