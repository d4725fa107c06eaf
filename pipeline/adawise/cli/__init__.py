"""The command line: the table of commands. `program` runs one.

Modules are imported when they are needed, so that `--help` answers at once.
"""

from __future__ import annotations

# Imports nothing: the program reads this before it handles signals.
TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence

    from adawise.cli.command import Command

PROGRAM = "adawise"

COMMANDS = {  # name: (module and class, line in the list of commands)
    "demo": ("adawise.cli.demo:DemoCommand", "show it at work on simulated cameras"),
    "run": ("adawise.cli.run:RunCommand", "classify images from Kafka until stopped"),
    "doctor": ("adawise.cli.doctor:DoctorCommand", "check whether a worker can work here"),
    "bench": ("adawise.cli.bench:BenchCommand", "measure a pair on this machine, and what limits it"),
    "cameras": ("adawise_cameras.cli:CamerasCommand", "send frames of cameras to the topic until stopped"),
    "produce": ("adawise.cli.produce:ProduceCommand", "send images from a folder, a list or a video"),
    "record": ("adawise.cli.record:RecordCommand", "store raw messages of a topic"),
    "replay": ("adawise.cli.replay:ReplayCommand", "run the worker on a recording"),
    "sweep": ("adawise_lab.cli.sweep:SweepCommand", "replay a recording with several settings, and compare them"),
    "diff": ("adawise_drift.cli.diff:DiffCommand", "prove two runs equal, or show where they differ"),
    "finetune": ("adawise_lab.cli.finetune:FinetuneCommand", "train the fine-tuned model on labelled images"),
    "card make": ("adawise_lab.cli.card:CardMakeCommand", "calibrate a pair of models on labelled images"),
    "card fit": (
        "adawise_lab.cli.recorded:CardFitCommand",
        "fit the search to a recording, and add that to a card",
    ),
    "card correct": ("adawise_lab.cli.recorded:CardCorrectCommand", "correct a card by labels that came late"),
    "card show": ("adawise_lab.cli.card:CardShowCommand", "show a card"),
    "evaluate": ("adawise_lab.cli.evaluate:EvaluateCommand", "compare strategies on labelled images"),
    "drift": (
        "adawise_drift.cli.drift:DriftCommand",
        "show when and how far alpha moved, and whether adapting helped",
    ),
    "labels": ("adawise.cli.labels:LabelsCommand", "store labels that arrive later from Kafka"),
    "sample": ("adawise.cli.sample:SampleCommand", "draw images to be labelled, with known probabilities"),
    "shortlists": ("adawise.cli.shortlists:ShortlistsCommand", "propose the classes that each camera can show"),
    "status": ("adawise.cli.status:StatusCommand", "show the state of workers, partitions and cameras"),
    "pair stage": (
        "adawise.cli.pair:PairStageCommand",
        "prepare another pair of models beside the serving one",
    ),
    "pair switch": ("adawise.cli.pair:PairSwitchCommand", "serve the staged pair, from one batch to the next"),
    "pair rollback": ("adawise.cli.pair:PairRollbackCommand", "serve the former pair again"),
    "pair list": ("adawise.cli.pair:PairListCommand", "show the pairs, and the progress of each worker"),
    "verify": ("adawise.cli.verify:VerifyCommand", "prove that an output folder is whole"),
    "repair": ("adawise.cli.repair:RepairCommand", "repair an output folder that lost files"),
    "compact": (
        "adawise.cli.compact:CompactCommand",
        "merge the small files of past days into few large ones",
    ),
    "retain": ("adawise.cli.retain:RetainCommand", "remove old output"),
    "files": ("adawise.cli.compact:FilesCommand", "list the files that hold each row once"),
    "dlq list": ("adawise.cli.dlq:DlqListCommand", "list messages that could not be read"),
    "dlq show": ("adawise.cli.dlq:DlqShowCommand", "show one such message"),
    "dlq replay": ("adawise.cli.dlq:DlqReplayCommand", "send such messages back to their topic"),
    "broker": ("adawise.cli.broker:BrokerCommand", "start an embedded broker for trying out"),
    "completion": ("adawise.cli.completion:CompletionCommand", "print completion of commands and options for a shell"),
    "config init": ("adawise.cli.config:ConfigInitCommand", "write a file of settings to start from"),
    "config show": ("adawise.cli.config:ConfigShowCommand", "show every setting and where it comes from"),
}


def begins_at(arguments: Sequence[str]) -> int:
    """Return the index of the command's first word in the arguments; `--config FILE` may come before it."""
    start = 0
    while arguments[start:] and arguments[start].startswith("--config"):
        start += 1 if "=" in arguments[start] else 2
    return start


def command_of(name: str) -> type[Command]:
    """Return the class of a command in `COMMANDS`."""
    from importlib import import_module

    module, _, kind = COMMANDS[name][0].partition(":")
    command: type[Command] = getattr(import_module(module), kind)
    return command
