"""The settings of `adawise finetune`."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from adawise.settings.group import Group


class FinetuneSettings(Group):
    """The settings `[finetune]`: how theta_1 is trained from theta_0."""

    loss: Literal["cross_entropy", "flyp"] = Field(
        default="cross_entropy",
        description="cross_entropy: the image tower alone, against the text head of all names that are served; flyp: "
        "both towers, against the prompts of a batch",
    )
    epochs: int = Field(default=10, ge=1, le=10_000, description="passes over the images, at most")
    batch_images: int = Field(default=64, ge=2, le=65_536, description="images of a forward")
    accumulate: int = Field(default=1, ge=1, le=4096, description="batches whose gradients make one update")
    learning_rate: float = Field(default=1e-5, gt=0, le=1, description="highest learning rate of AdamW")
    weight_decay: float = Field(default=0.1, ge=0, le=10, description="weight decay; norms and biases have none")
    warmup: float = Field(default=0.1, ge=0, le=1, description="share of the updates in which the rate rises")
    label_smoothing: float = Field(default=0.0, ge=0, le=0.9, description="share of a target that is spread")
    clip_norm: float = Field(default=1.0, gt=0, le=1e9, description="length that longer gradients are cut to")
    validation_share: float = Field(
        default=0.1,
        gt=0,
        le=0.9,
        description="share of each class that is held out, of a recording in whole stretches of time, unless "
        "--validation is given",
    )
    patience: int = Field(
        default=3, ge=1, le=10_000, description="epochs that do not become the best one, after which to end"
    )
    crop_min: float = Field(default=0.9, gt=0, le=1, description="smallest share of an image that a random crop keeps")
    flip: float = Field(default=0.0, ge=0, le=1, description="chance that an image is mirrored")
    jitter: float = Field(
        default=0.0,
        ge=0,
        le=0.9,
        description="most that brightness, contrast and saturation of an image change, as a share; 0: not at all",
    )
    balanced: bool = Field(
        default=False, description="as many images of each class in an epoch, those of rare ones several times"
    )
    lock_text: bool = Field(default=False, description="flyp: train the image tower alone")
    layer_decay: float = Field(
        default=0.75, gt=0, le=1, description="learning rate of a block as a share of the rate of the block above it"
    )
    seed: int = Field(default=0, ge=0, le=2**32 - 1, description="seed of split, order, crops and prompts")
    tensorboard: bool = Field(
        default=False, description="write the curve for TensorBoard, into the folder tensorboard of --output"
    )
    mlflow: bool = Field(
        default=False, description="tell the curve to the MLflow server that MLFLOW_TRACKING_URI names"
    )
    checkpoint_every_s: float = Field(
        default=300.0, ge=0, le=86_400, description="seconds between checkpoints within an epoch"
    )
    card_images: int = Field(
        default=1000, ge=1, le=10_000_000, description="held-out images that the card is made from, at most"
    )
    judged_images: int = Field(
        default=150, ge=8, le=10_000_000, description="images under each shift that the pair is judged on, at most"
    )
    rehearsal: bool = Field(
        default=True,
        description="run the recipe once more on half of the classes, to judge how the pair treats what it never saw: "
        "half as long again",
    )
