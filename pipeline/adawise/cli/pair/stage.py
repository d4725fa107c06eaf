"""The work of `adawise pair stage`: ask the workers of a root to prepare another pair."""

from __future__ import annotations

from adawise.app.alerts import alert_rules
from adawise.app.model import adaptation, load_model
from adawise.app.pairs import document_of
from adawise.app.prompts import prompt_templates
from adawise.cli.pair.run import asking, opened, wait_for
from adawise.console import say
from adawise.errors import SettingsError
from adawise.pairs.orders import give_order, read_orders
from adawise.settings import Settings
from adawise.sink.served_by import config_in_words


def stage(settings: Settings, *, root: str | None, shadow: int, keeps: bool, wait_s: float) -> int:
    """Check the pair of the settings, and order the workers of a root to prepare it.

    Returns:
        3 if a worker failed to, or could not in time; else 0.

    Raises:
        SettingsError: no worker writes there, the pair serves already, its pictures are prepared otherwise, or another
            order was given a moment before.
        CheckpointError, CardError, DeviceError: the pair cannot be loaded.
        ChainError, StoreUnavailable: the root is damaged, or does not answer.
    """
    # First: mistakes there are reported before the models are loaded, which takes seconds.
    store, orders = opened(settings, root)
    model = load_model(settings.model, settings.decode)
    adaptation(settings, model)
    alert_rules(settings.alerts, model.classes)
    document = document_of(settings, model, prompt_templates(settings.model))
    orders = read_orders(store, orders)
    serving = orders.serving
    if document.key.matches(serving.key):
        raise SettingsError(
            f"{store}: the pair of these settings is already serving, as pair {orders.serves}; name another"
        )
    if document.id == serving.id:
        theirs = config_in_words(serving.config, serving.used_config, document.used_config)
        ours = config_in_words(document.config, document.used_config, serving.used_config)
        raise SettingsError(
            f"{store}: pair {orders.serves} serves with the same weights and another config ({theirs}, by its "
            f"hash; this one's is {ours}), and what streams learned depends on the weights: restart a worker with "
            "the new config and --model.on-change keep, and the others follow"
        )
    serves, wanted = serving.identity["preprocess"], document.identity["preprocess"]
    if serves != wanted:
        raise SettingsError(
            f"it preprocesses images as {wanted}, the serving pair as {serves}, and workers hold images prepared "
            "so: restart them with the new pair and --model.on-change reset or keep"
        )
    number = orders.next_number
    orders = give_order(store, orders, "stage", pair=document, by=asking(), keeps=keeps, shadow=shadow)
    say(f"{store}: pair {number} is staged; the workers prepare it (`adawise pair list` shows their progress)")
    return wait_for(store, orders, wait_s, number, ("ready",))
