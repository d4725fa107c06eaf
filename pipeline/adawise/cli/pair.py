"""The commands `pair`, which serve another pair of models, other classes or another card without a stop."""

from __future__ import annotations

from typing import Annotated, ClassVar, Literal

from pydantic import Field
from pydantic_settings import CliPositionalArg, CliToggleFlag
from typing_extensions import override

from adawise.cli.command import FOUND, Command, all_but, json_flag
from adawise.settings.group import Location

_ROOT = Field(
    default=None, description="folder or s3://BUCKET/PREFIX that the workers write to; none: sink.root of the settings"
)
_STATE = "what streams do with what they learned with another pair; reset: each begins anew; keep: each goes on"
_WAIT = "seconds to wait for every worker to have done it, and then say how far each has come; 0: ask, and end"

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
    """Ask the workers of a root to prepare another pair of models beside the one that serves.

    The pair is the one that model.*, search.* and predict.* name, from adawise.toml with flags over it. It is loaded
    and checked here first, so that a mistake ends here. Then every worker loads it at low priority, checks it by the
    rules of a start, warms it up and encodes its heads; a worker without the memory for it says so and serves on. The
    next --shadow batches of each partition are classified by it too, in spare time, and `pair list` sums up how it
    does. Nothing that is served changes before `pair switch`. Staging again takes the place of what was staged.
    """

    name = "pair stage"
    groups = (*all_but("model", "on_change"), "search", "predict", "decode", "alerts", "sink.root", "log")
    examples = (
        (
            "a new theta_1 with its card, for the workers of adawise.toml",
            "pair stage --model.theta-1 new.safetensors --model.card new.card.json",
        ),
        (
            "other classes, watched on 100 batches of each partition",
            "pair stage runs/yard --model.classes more.txt --shadow 100",
        ),
        (
            "for a script: wait until every worker has it",
            "pair stage s3://bucket/yard --model.theta-1 new.pt --wait 120",
        ),
    )

    shadow: int = Field(
        default=20,
        ge=0,
        le=1_000_000,
        description="batches of each partition that it classifies beside the pair that serves",
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
    """Have the staged pair serve from now on: each worker switches each partition between two batches.

    The offset is recorded in the partition's next segment, so that whoever goes on with the chain serves with the same
    pair, whatever its settings name, and a replay with --pairs-of switches there too. Workers that do not have the pair
    ready serve on with theirs, and switch when they have; this refuses to ask while there is one, unless --anyway is
    given. The former pair stays in memory for pairs.keep_s.
    """

    name = "pair switch"
    examples = (
        ("to what was staged", "pair switch runs/yard"),
        ("to an earlier pair, by its number in `pair list`", "pair switch runs/yard --pair 0"),
        ("and let every camera go on from its alpha", "pair switch runs/yard --state keep"),
    )

    pair: int | None = Field(
        default=None, ge=0, description="number of the pair, see `adawise pair list`; none: the staged one"
    )
    state: State | None = Field(default=None, description=f"{_STATE}; none: as it was staged")
    anyway: CliToggleFlag[bool] = Field(default=False, description="although not every worker has it ready")
    wait: Seconds = Field(default=0.0, description=_WAIT)

    @override
    def call(self) -> int:
        """Have the workers switch to the pair."""
        from adawise.pairs.operate import switch

        return _code(switch(self.place, self.pair, _keeps(self.state), anyway=self.anyway, wait_s=self.wait))


class PairRollbackCommand(PairCommand):
    """Back to the pair that served before the last switch; or, where what is staged does not serve yet, withdraw it.

    Workers that still have the former pair in memory (pairs.keep_s) switch back between two batches; others load it
    first. What the switched pair has served stays as it is, and each row says by which pair. Given again, it changes
    nothing: what was taken back serves only once `pair switch --pair N` names it.
    """

    name = "pair rollback"
    examples = (
        ("at once", "pair rollback runs/yard"),
        ("and let every camera go on from its alpha", "pair rollback runs/yard --state keep"),
    )

    state: State | None = Field(default=None, description=f"{_STATE}; none: as at the last switch")
    wait: Seconds = Field(default=0.0, description=_WAIT)

    @override
    def call(self) -> int:
        """Go back to the former pair, or withdraw the staged one."""
        from adawise.pairs.operate import rollback

        return _code(rollback(self.place, _keeps(self.state), wait_s=self.wait))


class PairListCommand(PairCommand):
    """Show the pairs of a root: which serves and which is staged, how each worker stands, and how the shadow does.

    Changes nothing. Agreement is the share of images that both pairs give the same label; the objective's difference is
    that of the staged pair less that of the serving one, in nats, which says something only where both are of one kind.
    Ends with code 3 if a worker failed to load a pair that is asked for.
    """

    name = "pair list"
    examples = (
        ("of the output that adawise.toml names", "pair list"),
        ("for a script", "pair list s3://bucket/yard --json"),
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
