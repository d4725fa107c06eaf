"""The settings that control how a worker follows requests about its pair of models (`adawise pair`)."""

from __future__ import annotations

from pydantic import Field

from adawise.settings.group import Group


class PairsSettings(Group):
    """The settings `[pairs]`: how a worker changes to a new pair without a restart."""

    look_s: float = Field(
        default=10.0,
        ge=0.1,
        le=3600,
        description="seconds between two checks of the root for orders about pairs; each is one listing",
    )
    keep_s: float = Field(
        default=3600.0,
        ge=0,
        le=1e9,
        description="seconds for which the former pair stays in memory, so that a rollback is immediate",
    )
    shadow_share: float = Field(
        default=0.1,
        gt=0,
        le=1,
        description="share of time that the shadow of a staged pair may take from serving while images wait; it "
        "takes more when the worker is idle",
    )
