"""The settings of `adawise finetune`."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Annotated, Literal

from pydantic import Field, field_validator
from typing_extensions import override

from adawise.settings.group import Group


class FinetuneSettings(Group):
    """The settings `[finetune]`: how theta_1 is trained from theta_0."""

    loss: Literal["cross_entropy", "balanced", "flyp"] = Field(
        default="cross_entropy",
        description="cross_entropy: train the image tower only, against the text head of all served names; "
        "balanced: the same, corrected for how many images each class has (balanced softmax); flyp: train both towers, "
        "against the prompts of a batch",
    )
    epochs: int = Field(default=10, ge=1, le=10_000, description="most passes over the images")
    batch_images: int = Field(default=64, ge=2, le=65_536, description="images of a forward")
    accumulate: int = Field(default=1, ge=1, le=4096, description="batches whose gradients are averaged for one update")
    learning_rate: Annotated[float, Field(gt=0, le=1)] | Literal["auto"] = Field(
        default="auto",
        description="highest learning rate of AdamW; auto: 1e-5, and except with flyp up to 2e-5 "
        "for a run of few updates",
    )
    weight_decay: float = Field(default=0.1, ge=0, le=10, description="weight decay, except of norms and biases")
    warmup: float = Field(default=0.1, ge=0, le=1, description="share of the updates in which the rate warms up")
    label_smoothing: float = Field(
        default=0.0,
        ge=0,
        le=0.9,
        description="label smoothing: share of a target that is spread over all classes, with the loss balanced in "
        "proportion to their images",
    )
    clip_norm: float = Field(default=1.0, gt=0, le=1e9, description="norm to which longer gradients are clipped")
    validation_share: float = Field(
        default=0.1,
        gt=0,
        le=0.9,
        description="share of each class that is held out (of a recording: in whole stretches of time), unless "
        "--validation is given",
    )
    patience: int = Field(
        default=3, ge=1, le=10_000, description="epochs without a new best one after which training ends"
    )
    crop_min: float = Field(default=0.9, gt=0, le=1, description="smallest share of an image in a random crop")
    flip: float = Field(default=0.0, ge=0, le=1, description="probability that an image is mirrored")
    jitter: float = Field(
        default=0.0,
        ge=0,
        le=0.9,
        description="largest relative change of brightness, contrast and saturation; 0: none",
    )
    balanced: bool = Field(
        default=False,
        description="use equally many images of each class in an epoch, those of rare classes several times",
    )
    lock_text: bool = Field(default=False, description="flyp: train the image tower only")
    layer_decay: float = Field(
        default=0.75, gt=0, le=1, description="learning rate of a block as a share of the rate of the block above it"
    )
    blocks: Annotated[int, Field(ge=1, le=10_000)] | Literal["auto", "all"] | None = Field(
        default="auto",
        description="train only this many of the image tower's last blocks, and what follows them; layers before stay "
        "equal in both models, and are computed once an image whatever alpha is tried. auto: a third of the blocks; "
        "all with flyp, or where the tower has no blocks",
    )

    @field_validator("blocks")
    @classmethod
    def _none_is_all(cls, value: int | str | None) -> int | str:
        """Return what `none`, the default of 0.3, meant."""
        return "all" if value is None else value

    seed: int = Field(default=0, ge=0, le=2**32 - 1, description="random seed of split, order, crops and prompts")
    tensorboard: bool = Field(
        default=False, description="write the training curve for TensorBoard into the folder tensorboard of --output"
    )
    mlflow: bool = Field(
        default=False, description="log the training curve to the MLflow server of MLFLOW_TRACKING_URI"
    )
    checkpoint_every_s: float = Field(
        default=300.0, ge=0, le=86_400, description="seconds between checkpoints within an epoch"
    )
    card_images: int = Field(
        default=1000, ge=1, le=10_000_000, description="most held-out images that the card is made from"
    )
    judged_images: int = Field(
        default=150, ge=8, le=10_000_000, description="most images that the pair is judged on under each shift"
    )
    rehearsal: bool = Field(
        default=True,
        description="run the recipe again on half of the classes, to judge the pair on classes that it never saw; "
        "takes half as long again",
    )

    @override
    def problems(self) -> Iterator[tuple[str, str]]:
        """Yield a mistake if both the loss and the order of images correct for uneven classes."""
        if self.loss == "balanced" and self.balanced:
            yield (
                "balanced",
                "the loss balanced corrects for uneven classes, and would do so a second time; leave one of them out",
            )
