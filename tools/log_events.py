"""The list of every event that the program logs, with its meaning and its remedy.

An event is named in the past tense, and its facts are the keys of its line. Names are stable. The level and the keys of
an event are read from the code that logs it (`python -m tools.docs`); a test checks that list and code agree.
"""

from __future__ import annotations

from typing import NamedTuple


class LoggedEvent(NamedTuple):
    """The meaning of an event, and its remedy; "" if there is nothing to do."""

    meaning: str
    remedy: str = ""


EVENTS: dict[str, LoggedEvent] = {
    # how a program ends
    "program_failed": LoggedEvent(
        "The program ends with this error and exit code. It is the last line.", "Do what `remedy` says."
    ),
    "thread_failed": LoggedEvent("A bug ended one of the program's threads.", "Report it, with the lines before it."),
    "program_interrupted": LoggedEvent("The program was interrupted before it was done. It is the last line."),
    # a worker's life
    "start_requested": LoggedEvent(
        "The settings are valid. The worker loads its libraries, and has not connected to anything yet."
    ),
    "worker_started": LoggedEvent("The model is loaded, and the worker joins its consumer group."),
    "model_loaded": LoggedEvent("The worker read checkpoints, classes and card. The line names them and the device."),
    "certificate_aged": LoggedEvent(
        "A certificate for the broker expires soon. After that, no new connection is accepted.",
        "Renew the certificate that the line names.",
    ),
    "partitions_awaited": LoggedEvent(
        "The group has not assigned a partition to this worker yet.",
        "Wait. Workers beyond the number of partitions stay in reserve.",
    ),
    "worker_stopped": LoggedEvent("The worker was asked to stop, and wrote what was complete."),
    "tracing_started": LoggedEvent("The worker sends spans of batches to this collector."),
    "tracing_left_out": LoggedEvent(
        "A collector is configured, but no spans are sent to it.", "Install or set what the line names."
    ),
    "http_started": LoggedEvent("The worker serves probes, metrics and the live page at this URL."),
    "http_failed": LoggedEvent(
        "The HTTP server failed. The worker goes on without it.", "Report it, with the lines before it."
    ),
    "page_fell_behind": LoggedEvent("The live page could not be updated. The worker goes on.", "Report it."),
    # partitions and their chains
    "partition_recovered": LoggedEvent("The worker took over a partition and followed its chain to the end."),
    "partition_lost": LoggedEvent("A partition was taken from this worker."),
    "partition_added": LoggedEvent(
        "The topic got a partition after its first output. The worker reads it from its start."
    ),
    "partition_blocked": LoggedEvent(
        "A partition's next message cannot be read. The worker goes on with its other partitions.",
        "Do what the line says.",
    ),
    "segment_committed": LoggedEvent("Rows are durable, and their offset is committed to the broker."),
    "race_lost": LoggedEvent(
        "Another worker had written this segment. This worker adopted its state.",
        "If it happens often, look at the members of the group.",
    ),
    "retry_scheduled": LoggedEvent(
        "The broker or the store did not answer. The worker tries again.",
        "If it stays, restore the broker or the store.",
    ),
    "store_filled": LoggedEvent(
        "The output's storage is full. The worker tries again, and nothing is lost.",
        "Free space: `adawise retain` removes old output, `adawise record --prune-only` expired parts of a recording.",
    ),
    "store_retried": LoggedEvent("A request to an object store failed and was sent again."),
    "alerts_retried": LoggedEvent("Alertmanager did not answer `drift`, which tries again."),
    "messages_lost": LoggedEvent(
        "The broker deleted messages before they were read. The gap is recorded.", "Raise retention.ms, or read faster."
    ),
    "hole_found": LoggedEvent(
        "Segments are missing from a chain.",
        "Run `adawise verify`; restore the segments, or bridge the hole with `adawise repair`.",
    ),
    "chain_not_counted": LoggedEvent(
        "An earlier version wrote the end of a chain, so missing segments before it cannot be detected."
    ),
    "files_retained": LoggedEvent("The worker removed output that was older than sink.keep."),
    "retention_failed": LoggedEvent(
        "The worker could not remove old output. It tries again in an hour.", "Fix the error that the line shows."
    ),
    # images and streams
    "batch_served": LoggedEvent("A batch was adapted and predicted (shown with log.level = debug)."),
    "pair_order_damaged": LoggedEvent(
        "A document in _pairs cannot be read, or names a pair that is not described. It is ignored.",
        "Restore it, or run the `adawise pair` command again.",
    ),
    "observer_failed": LoggedEvent(
        "Code that reports the work (metrics, page, sums for alerts) raised an error. The work goes on.", "Report it."
    ),
    "search_failed": LoggedEvent(
        "The search of a batch raised an error. The batch was served at the first alpha; its stream starts anew.",
        "Report it, with the stream's traces.",
    ),
    "frame_rejected": LoggedEvent(
        "An image or a message cannot be read.", "Fix its producer; `adawise dlq list` shows what came."
    ),
    "frames_rejected": LoggedEvent(
        "This many more images of one camera were rejected for one reason since the last such line.",
        "As for frame_rejected.",
    ),
    "producer_mistaken": LoggedEvent(
        "A header or a column of a message was invalid and ignored. The image was accepted.", "Fix its producer."
    ),
    "batches_closed_early": LoggedEvent(
        "Open batches did not fit into memory and were closed early.", "Raise limits.inflight_mib."
    ),
    "streams_evicted": LoggedEvent(
        "There were more streams than limits.streams, so some start anew.",
        "Raise limits.streams, or find the producer that sends under new names.",
    ),
    "decoder_killed": LoggedEvent("A message killed its isolated decoder process. At the second time it is rejected."),
    "decoder_stalled": LoggedEvent(
        "A message takes long to decode. The worker waits for it.", "Do what `remedy` says."
    ),
    "decoding_set_apart": LoggedEvent(
        "Workers of this partition were killed. Its messages are now decoded in an isolated process.",
        "Check the host and its memory. If a message is the cause, it is found and rejected.",
    ),
    "shard_killed": LoggedEvent(
        "The process of a shard of `sweep` ended without an answer; it is started again, three times at most.",
        "If it lacked memory: lower `--processes`, or limits.inflight_mib.",
    ),
    "start_not_marked": LoggedEvent(
        "The file that counts workers that were killed could not be written. The worker goes on without it."
    ),
    "start_not_unmarked": LoggedEvent(
        "The file that counts workers that were killed could not be removed. It counts as a killed worker."
    ),
    "claim_damaged": LoggedEvent(
        "A claim of retention cannot be read. By its name, what comes before it in the partition is left out.",
        "Restore it from a copy, or move it away; `adawise verify` checks the root.",
    ),
    # `adawise cameras`
    "cameras_started": LoggedEvent("The topic exists, and the program reads this many cameras."),
    "cameras_stopped": LoggedEvent("The program was asked to stop. The broker has what the cameras sent."),
    "cameras_reloaded": LoggedEvent(
        "SIGHUP: the program read its file again. The line lists cameras added, changed and removed."
    ),
    "cameras_not_reloaded": LoggedEvent(
        "SIGHUP: the file has mistakes. All cameras go on as before.", "Correct the mistakes that the line names."
    ),
    "camera_connected": LoggedEvent("A camera's stream is open."),
    "camera_failed": LoggedEvent(
        "A camera's connection failed or ended. The program tries again, and logs each reason once.",
        "The line says why. If `refused` is true, fix the camera's settings.",
    ),
    "camera_watch_failed": LoggedEvent("A bug ended a camera's connection. The program opens it again.", "Report it."),
    "camera_frames_dropped": LoggedEvent(
        "Frames of a camera were dropped within a minute. The line has the last reason.",
        "See adawise_camera_dropped_total.",
    ),
    "picture_repeated": LoggedEvent(
        "A camera has sent the same picture for frozen_after_s. Its frames are still sent.", "Restart the camera."
    ),
    "picture_changed": LoggedEvent("A frozen camera sends new pictures again."),
    "camera_clock_refused": LoggedEvent(
        "A camera's clock is more than a minute off. Its frames get this machine's time.",
        'Set the camera\'s clock (NTP), or `clock = "arrival"` for it.',
    ),
    "camera_clock_accepted": LoggedEvent("A camera's clock is right again. Its frames get its own time."),
    "camera_clock_set_back": LoggedEvent(
        "The times of a camera's frames went back by more than a minute: the clock had been wrong.",
        "Check NTP on this machine.",
    ),
    "video_ended": LoggedEvent("A video without `loop` ended."),
    # pairs of models
    "pair_taken": LoggedEvent(
        "The worker serves the pair that was switched to; its settings name an earlier one.", "Update the settings."
    ),
    "batches_not_covered": LoggedEvent(
        "The root of --batches-of lacks a partition's first batches. They end by their timestamps."
    ),
    "pair_not_described": LoggedEvent(
        "The root's first pair cannot be described to other workers: a path is not UTF-8, or it has too many names.",
        "Rename its files.",
    ),
    "pair_ordered": LoggedEvent("A user ran an `adawise pair` command."),
    "pair_loaded": LoggedEvent("A pair was loaded, checked and warmed up beside the serving pair."),
    "pair_failed": LoggedEvent(
        "A pair could not be loaded. The serving pair goes on, and the worker tries again.",
        "Fix the error that the line shows.",
    ),
    "pair_switched": LoggedEvent("Another pair serves a partition from this offset on."),
    "shadow_dropped": LoggedEvent(
        "A staged pair is no longer tried on batches. It can still be switched to.", "The line says why."
    ),
    "pair_freed": LoggedEvent("A former pair was removed from memory (pairs.keep_s)."),
    "pairs_not_read": LoggedEvent(
        "The worker could not read orders about pairs, or could not report its state. It tries again.",
        "Fix the error that the line shows.",
    ),
    # models
    "model_changed": LoggedEvent(
        "A part of the pair differs from the one that the root was written with.", "See model.on_change."
    ),
    "precision_followed": LoggedEvent(
        "The setting model.precision is auto, and the root or the run goes on in the number format in which it was "
        "begun. A new one would get another on this machine.",
        "If the line says that it is slow, set model.precision for all workers of the group.",
    ),
    "precision_not_followed": LoggedEvent(
        "This machine does not have the number format in which the root is served, and uses another.",
        "Set model.precision to one that all workers have.",
    ),
    "precision_set": LoggedEvent(
        "The setting model.precision is another number format than that in which the root is served. It wins.",
        "Set the same for all workers of the group.",
    ),
    "precision_taken": LoggedEvent(
        "While the pair was loaded, another worker began the root in another number format, or its disk was mounted. "
        "The pair is loaded again in that."
    ),
    "precision_not_read": LoggedEvent(
        "The root's document `_numerics.json` is damaged. The newest segments decide the number format.",
        "Restore the document, or remove it.",
    ),
    "precision_not_found": LoggedEvent(
        "The worker's output cannot be read, so a replay with the setting auto does not know its number format.",
        "Set model.precision.",
    ),
    "preprocessing_guessed": LoggedEvent(
        "A checkpoint file does not say how to preprocess images, or which GELU it uses.",
        "Do what `remedy` says; see docs/guide/checkpoints.md.",
    ),
    "card_made_otherwise": LoggedEvent(
        "The card was made with other settings for reading images.", "Make the card again."
    ),
    "card_made_of_earlier_pixels": LoggedEvent(
        "An earlier version made the card. Some of its pixels differed by one level."
    ),
    "card_left_out": LoggedEvent(
        "The card of this pair and these classes is beside theta_1, and alpha is searched without it.",
        "Set model.card.",
    ),
    "advice_made_for_all_classes": LoggedEvent(
        "The card advises a fixed alpha by a comparison among all classes, and cameras have shortlists.",
        "Set search.strategy to warm, or to fixed if that alpha is meant.",
    ),
    "prior_uncalibrated": LoggedEvent(
        "A class prior is learned from confidences that no card calibrates.",
        "Make a card, and name it as model.card.",
    ),
    "card_not_used": LoggedEvent("The card does not belong to this pair and is ignored.", "Do what `remedy` says."),
    "activations_not_kept": LoggedEvent(
        "Memory is too small for the activations of the layers that both models share; probes run the whole tower.",
        "Do what `remedy` says.",
    ),
    "bank_shrunk": LoggedEvent(
        "Memory holds fewer merged copies of the weights than configured.", "Do what `remedy` says."
    ),
    "graph_refused": LoggedEvent(
        "CUDA could not capture the forward pass. The worker runs without a graph.", "Do what `remedy` says."
    ),
    "heads_encoded": LoggedEvent("The text heads of all alphas are ready."),
    "head_damaged": LoggedEvent("A text head on disk was damaged and is encoded again."),
    "head_cache_not_read": LoggedEvent(
        "Text heads on disk cannot be read. They are encoded again.", "Do what `remedy` says."
    ),
    "head_cache_not_written": LoggedEvent("Text heads cannot be stored on disk.", "Do what `remedy` says."),
    # recordings and replays
    "recording_tidied": LoggedEvent("Expired files or images of a recording were removed."),
    "recording_not_tidied": LoggedEvent(
        "Expired parts of a recording could not be removed. The program tries again.",
        "Fix the error that the line shows.",
    ),
    "labels_retried": LoggedEvent("The broker or the store did not answer `adawise labels`, which tries again."),
    "recording_retried": LoggedEvent("The broker or the store did not answer `adawise record`, which tries again."),
    "run_of_comparison_began": LoggedEvent("The next run of a comparison of blocks begins. The line names its folder."),
    "rehearsal_began": LoggedEvent("The recipe runs once more without some of the classes."),
    "rehearsal_left_out": LoggedEvent(
        "The images do not allow a rehearsal. The pair is judged without one.", "The line says why."
    ),
    "replay_continued": LoggedEvent("The folder holds a part of this replay, which continues there."),
    "states_not_taken": LoggedEvent("The initial states were written with other settings. Streams start anew."),
    # cards, evaluation, fine-tuning
    "classes_taken_from_images": LoggedEvent(
        "model.classes is not set: the class names are those that the files declare, or the labels of the images.",
        "Set model.classes to the served names if there are others.",
    ),
    "images_left_out": LoggedEvent(
        "Images of classes that the pair does not know, or that cannot be decoded, were left out.",
    ),
    "image_skipped": LoggedEvent("An image cannot be read and was skipped.", "The line says why."),
    "images_not_labelled": LoggedEvent("Images without a label were left out."),
    "search_fit_begun": LoggedEvent("The program fits the search's numbers for the card."),
    "objective_chosen": LoggedEvent("The program chose the objective to minimise. The line says which and why."),
    "pixels_missed": LoggedEvent("The tables lack pixel statistics, which the streams need.", "Make the tables again."),
    "strategy_chosen": LoggedEvent("The line says what `auto` means with this card, where strategies are compared."),
    "training_began": LoggedEvent("Fine-tuning began, with this learning rate and this many trained blocks."),
    "training_of_protocol_began": LoggedEvent(
        "`evaluate --protocol chronological` trains on the images up to an interval of time, `until`."
    ),
    "training_failed": LoggedEvent(
        "A training of the protocol diverged, or could not read its images: theta_0 alone serves the next interval.",
        "The line says which: lower finetune.learning_rate, or see to the images.",
    ),
    "interval_left_out": LoggedEvent(
        "No image of an interval can be decoded, and the protocol goes on without it.", "The line says why."
    ),
    "epoch_finished": LoggedEvent("An epoch of fine-tuning ended."),
    "memory_estimated": LoggedEvent(
        "The line estimates the memory of fine-tuning without activations, and the size of a checkpoint."
    ),
    "duration_estimated": LoggedEvent("The line estimates how long fine-tuning takes, from its first updates."),
    "data_questioned": LoggedEvent("The training images may have a problem.", "Check what the line names."),
    "folders_left_empty": LoggedEvent("Folders of classes contain no image.", "Add images, or remove the folders."),
    "files_skipped": LoggedEvent("Files beside the images have a format that cannot be read.", "Convert them."),
    "tracking_failed": LoggedEvent(
        "TensorBoard or MLflow cannot record the run. Fine-tuning goes on.", "The line says why."
    ),
    "barrier_found": LoggedEvent(
        "Half-way between the models accuracy is worse than at both ends.", "Train with a lower rate."
    ),
}
