"""The commands `pair`, which serve another pair of models, other classes or another card without a stop."""

from __future__ import annotations

from typing import Annotated, ClassVar, Literal

from pydantic import Field
from pydantic_settings import CliPositionalArg, CliToggleFlag
from typing_extensions import override

from adawise.cli.command import FOUND, Command, all_but, json_flag
from adawise.settings.group import Location

_ROOT = Field(
    default=None, description="output folder or s3://BUCKET/PREFIX of the workers; none: sink.root of the settings"
)
_STATE = (
    "what streams do with their adaptation state; reset: each starts anew; keep: each keeps what it "
    "learned with the other pair"
)
_WAIT = "seconds to wait for every worker to finish, then print the progress of each; 0: do not wait"

State = Literal["reset", "keep"]
Seconds = Annotated[float, Field(ge=0, le=86_400)]


class PairCommand(Command):
    """A command about the pairs of a root."""

    groups: ClassVar[tuple[str, ...]] = ("sink.root", "log")

    root: CliPositionalArg[Location | None] = _ROOT

    @property
    def place(self) -> str:
        """The root."""
        return self.root or self.settings.sink.root


class PairStageCommand(PairCommand):
    """Have the workers of a root prepare another pair of models beside the serving one.

    The pair is that of model.*, search.* and predict.*, from adawise.toml with flags over it. This command loads and
    checks it first, so that mistakes are found here. Then every worker loads it at low priority, checks it as at a
    start, warms it up and encodes its heads; a worker without enough memory reports that and goes on. In spare time it
    also classifies the next --shadow batches of each partition, and `pair list` shows how it compares. Serving does
    not change before `pair switch`. Staging another pair replaces the staged one.
    """

    name = "pair stage"
    finds = True
    groups = (*all_but("model", "on_change"), "search", "scene", "predict", "decode", "alerts", "sink.root", "log")
    examples = (
        (
            "stage a new theta_1 with its card for the workers of adawise.toml",
            "pair stage --model.theta-1 new.safetensors --model.card new.card.json",
        ),
        (
            "stage other classes, tried on 100 batches of each partition",
            "pair stage runs/yard --model.classes more.txt --shadow 100",
        ),
        (
            "wait in a script until every worker has it",
            "pair stage s3://bucket/yard --model.theta-1 new.pt --wait 120",
        ),
    )

    shadow: int = Field(
        default=20,
        ge=0,
        le=1_000_000,
        description="batches of each partition that the staged pair classifies beside the serving one",
    )
    state: State = Field(default="reset", description=_STATE)
    wait: Seconds = Field(default=0.0, description=_WAIT)

    @override
    def call(self) -> int:
        """Stage the pair of the settings."""
        from adawise.app.pairs import checked_document
        from adawise.pairs.operate import open_orders, stage

        store, orders = open_orders(self.place)  # mistakes there are reported before the models are loaded
        document = checked_document(self.settings)
        return _code(stage(store, orders, document, self.shadow, keeps=self.state == "keep", wait_s=self.wait))


class PairSwitchCommand(PairCommand):
    """Serve with the staged pair from now on: each worker switches each partition between two batches.

    The offset is recorded in the partition's next segment, so that a worker that continues the chain serves with the
    same pair, whatever its settings name, and a replay with --pairs-of switches there too. The command refuses while a
    worker does not have the pair ready; with --anyway, such workers keep serving their pair and switch once they have
    it. The former pair stays in memory for pairs.keep_s.
    """

    name = "pair switch"
    finds = True
    examples = (
        ("switch to the staged pair", "pair switch runs/yard"),
        ("switch to an earlier pair, by its number in `pair list`", "pair switch runs/yard --pair 0"),
        ("switch, and let every camera keep its alpha", "pair switch runs/yard --state keep"),
    )

    pair: int | None = Field(
        default=None, ge=0, description="number of the pair, see `adawise pair list`; none: the staged one"
    )
    state: State | None = Field(default=None, description=f"{_STATE}; none: as it was staged")
    anyway: CliToggleFlag[bool] = Field(
        default=False, description="switch although not every worker has the pair ready"
    )
    wait: Seconds = Field(default=0.0, description=_WAIT)

    @override
    def call(self) -> int:
        """Have the workers switch to the pair."""
        from adawise.pairs.operate import switch

        return _code(switch(self.place, self.pair, _keeps(self.state), anyway=self.anyway, wait_s=self.wait))


class PairRollbackCommand(PairCommand):
    """Serve with the pair from before the last switch again; or withdraw a staged pair that does not serve yet.

    Workers that still have the former pair in memory (pairs.keep_s) switch back between two batches; others load it
    first. Rows that the other pair served do not change, and each row names its pair. A second rollback changes
    nothing: a pair that was rolled back serves again only after `pair switch --pair N`.
    """

    name = "pair rollback"
    finds = True
    examples = (
        ("roll back at once", "pair rollback runs/yard"),
        ("go back, and let every camera keep its alpha", "pair rollback runs/yard --state keep"),
    )

    state: State | None = Field(default=None, description=f"{_STATE}; none: as at the last switch")
    wait: Seconds = Field(default=0.0, description=_WAIT)

    @override
    def call(self) -> int:
        """Go back to the former pair, or withdraw the staged one."""
        from adawise.pairs.operate import rollback

        return _code(rollback(self.place, _keeps(self.state), wait_s=self.wait))


class PairListCommand(PairCommand):
    """Show the pairs of a root: the serving and the staged one, the state of each worker, and the shadow's results.

    Changes nothing. Agreement is the share of images to which both pairs give the same label; the objective's
    difference is that of the staged pair minus that of the serving one, in nats, which can be compared only if both use
    the same objective. Exits with code 3 if a worker failed to load a pair that it should.
    """

    name = "pair list"
    finds = True
    examples = (
        ("show the output that adawise.toml names", "pair list"),
        ("print JSON for a script", "pair list s3://bucket/yard --json"),
    )

    as_json: CliToggleFlag[bool] = json_flag("print it as JSON")

    @override
    def call(self) -> int:
        """Print the pairs and the workers."""
        from adawise.pairs.show import show

        return _code(show(self.place, as_json=self.as_json))


def _keeps(state: State | None) -> bool | None:
    return None if state is None else state == "keep"


def _code(is_well: bool) -> int:
    return 0 if is_well else FOUND
