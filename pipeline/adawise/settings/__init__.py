"""Settings: the tree of all settings (`tree`), their sources (`sources`), and how they are read (`reading`)."""

from adawise.settings.alerts import AlertsSettings
from adawise.settings.finetuning import FinetuneSettings
from adawise.settings.http import HttpSettings
from adawise.settings.kafka import KafkaSettings, SecuritySettings
from adawise.settings.reading import Reading, read
from adawise.settings.scene import SceneSettings
from adawise.settings.tree import (
    BatchSettings,
    DecodeSettings,
    LimitsSettings,
    LogSettings,
    ModelSettings,
    PairsSettings,
    PredictSettings,
    ResultsSettings,
    SearchSettings,
    Settings,
    SinkSettings,
)

__all__ = [
    "AlertsSettings",
    "BatchSettings",
    "DecodeSettings",
    "FinetuneSettings",
    "HttpSettings",
    "KafkaSettings",
    "LimitsSettings",
    "LogSettings",
    "ModelSettings",
    "PairsSettings",
    "PredictSettings",
    "Reading",
    "ResultsSettings",
    "SceneSettings",
    "SearchSettings",
    "SecuritySettings",
    "Settings",
    "SinkSettings",
    "read",
]
