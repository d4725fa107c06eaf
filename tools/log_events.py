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
        "the program ends, by this error and with this exit code; it is the last line", "what `remedy` says"
    ),
    "thread_failed": LoggedEvent("a fault of the program ended one of its threads", "report it, with the lines before"),
    "program_interrupted": LoggedEvent("it was interrupted before it was done; it is the last line"),
    # a worker's life
    "start_requested": LoggedEvent("settings are right; libraries are loaded, and nothing is asked of anybody yet"),
    "worker_started": LoggedEvent("the model is loaded, and the worker joins its group"),
    "model_loaded": LoggedEvent("checkpoints, classes and card are there: what they are, and on which device"),
    "certificate_aged": LoggedEvent(
        "a certificate towards the broker ends soon; then nobody who connects is let in", "the line says which and when"
    ),
    "partitions_awaited": LoggedEvent(
        "the group has not given it a partition yet", "wait; a worker beyond the number of partitions is in reserve"
    ),
    "worker_stopped": LoggedEvent("it was told to stop, and wrote what was complete"),
    "tracing_started": LoggedEvent("spans of batches go to this collector"),
    "tracing_left_out": LoggedEvent("a collector is named, and no spans go there", "the line says what is needed"),
    "http_started": LoggedEvent("probes, metrics and the page are served there"),
    "http_failed": LoggedEvent("the HTTP port ended; the worker goes on", "report it, with the lines before"),
    "page_fell_behind": LoggedEvent("what the page shows could not be made; the worker goes on", "report it"),
    # partitions and their chains
    "partition_recovered": LoggedEvent("a partition is this worker's, and its chain was followed to the end"),
    "partition_lost": LoggedEvent("a partition is another worker's now, or nobody's"),
    "partition_added": LoggedEvent("the topic got a partition since its first output; it is read from its start"),
    "partition_blocked": LoggedEvent(
        "what comes next in a partition cannot be read; the others go on", "the line says why and what to do"
    ),
    "segment_committed": LoggedEvent("rows are durable, and the offset is told to the broker"),
    "race_lost": LoggedEvent(
        "another worker wrote this segment; its state is adopted", "often: see the group's members"
    ),
    "retry_scheduled": LoggedEvent("broker or store did not answer; it is tried again", "if it stays: bring it back"),
    "store_filled": LoggedEvent(
        "the output has no room; it is tried again, and nothing is lost",
        "make room: `adawise retain` removes old output, `adawise record --prune-only` what a recording may forget",
    ),
    "store_retried": LoggedEvent("a request to an object store is sent again"),
    "alerts_retried": LoggedEvent("Alertmanager does not answer `drift`; it is asked again"),
    "messages_lost": LoggedEvent(
        "the broker deleted messages that nobody had read; the gap is recorded", "raise retention.ms, or read faster"
    ),
    "hole_found": LoggedEvent(
        "segments are missing from a chain", "`adawise verify`; restore them, or bridge them with `adawise repair`"
    ),
    "chain_not_counted": LoggedEvent("an earlier version wrote the end of a chain: holes before it cannot be seen"),
    "files_retained": LoggedEvent("what is older than sink.keep was removed"),
    "retention_failed": LoggedEvent("it could not be removed; it is tried again in an hour", "the line says why"),
    # images and streams
    "batch_served": LoggedEvent("a batch was adapted and predicted (log.level debug)"),
    "pair_order_damaged": LoggedEvent(
        "a document in _pairs cannot be read, or is about a pair that none describes; it is passed over",
        "restore it, or give the order again",
    ),
    "observer_failed": LoggedEvent(
        "what shows the work (metrics, page, alerts' sums) raised an error; the work goes on", "report it"
    ),
    "search_failed": LoggedEvent(
        "the search of a batch raised an error: it was served at the first alpha, and its stream learns anew",
        "report it, with the traces of the stream",
    ),
    "frame_rejected": LoggedEvent("an image or message cannot be read", "mend its producer; `adawise dlq list`"),
    "frames_rejected": LoggedEvent("so many more of one camera and reason since the line before", "as frame_rejected"),
    "producer_mistaken": LoggedEvent("a header or column was passed over; the image counts", "mend its producer"),
    "batches_closed_early": LoggedEvent("open batches do not fit into memory", "raise limits.inflight_mib"),
    "streams_evicted": LoggedEvent(
        "more streams than limits.streams: some begin anew", "raise it, or find who names them"
    ),
    "decoder_killed": LoggedEvent("a message ended the process that decoded it apart; it is rejected after the second"),
    "decoder_stalled": LoggedEvent("a message is decoded for long; it is waited for", "see the line's remedy"),
    "decoding_set_apart": LoggedEvent(
        "workers that had this partition were killed: what they read is decoded in a process of its own",
        "was it the host, or out of memory? Else the message is found and rejected",
    ),
    "start_not_marked": LoggedEvent("the mark by which deaths are counted could not be written; it goes on without"),
    "start_not_unmarked": LoggedEvent("such a mark could not be removed, and counts as a death"),
    # `adawise cameras`
    "cameras_started": LoggedEvent("the topic is there, and so many cameras are read"),
    "cameras_stopped": LoggedEvent("it was told to stop, and the broker has what the cameras sent"),
    "cameras_reloaded": LoggedEvent("SIGHUP: the file was read again; which cameras that added, changed, removed"),
    "cameras_not_reloaded": LoggedEvent("SIGHUP: the file has mistakes; all go on as they were", "the line names them"),
    "camera_connected": LoggedEvent("a camera's stream is open"),
    "camera_failed": LoggedEvent(
        "a camera's connection ended or could not be made; it is tried again (told once for each reason)",
        "the line says why; if `refused`, it needs somebody to mend it",
    ),
    "camera_watch_failed": LoggedEvent("a fault of the program ended a camera's connection; it goes on", "report it"),
    "camera_frames_dropped": LoggedEvent(
        "frames of a camera were not sent, in a minute, the last for this reason", "see adawise_camera_dropped_total"
    ),
    "picture_repeated": LoggedEvent("a camera sends the same picture for frozen_after_s; it is sent on", "restart it"),
    "picture_changed": LoggedEvent("such a camera sends other pictures again"),
    "camera_clock_refused": LoggedEvent(
        "a camera's own clock is more than a minute off: the times of its frames are by this machine's clock",
        'set the camera\'s clock (NTP), or `clock = "arrival"` for it',
    ),
    "camera_clock_accepted": LoggedEvent("such a camera's clock is right again, and its frames have its times"),
    "camera_clock_set_back": LoggedEvent(
        "the times of a camera's frames went back by more than a minute: the clock was wrong before",
        "see to NTP on this machine",
    ),
    "video_ended": LoggedEvent("a video without `loop` is over"),
    # pairs of models
    "pair_taken": LoggedEvent(
        "the pair that was switched to serves, although the settings name an earlier one",
        "bring the settings up to date",
    ),
    "batches_not_covered": LoggedEvent(
        "a root that a replay ends its batches by lacks the first of a partition: they end by the timestamps"
    ),
    "pair_not_described": LoggedEvent(
        "the first pair of a root has a path that is not UTF-8, or too many names, to be described for other workers",
        "give its files other names",
    ),
    "pair_ordered": LoggedEvent("somebody asked for something by `adawise pair`"),
    "pair_loaded": LoggedEvent("a pair is loaded, checked and warmed up beside the one that serves"),
    "pair_failed": LoggedEvent(
        "a pair could not be loaded; what serves serves on, and it is tried again", "the line says why"
    ),
    "pair_switched": LoggedEvent("another pair serves a partition, from this offset on"),
    "shadow_dropped": LoggedEvent(
        "a staged pair is tried on no more batches; it can be switched to", "the line says why"
    ),
    "pair_freed": LoggedEvent("a former pair left the memory (pairs.keep_s)"),
    "pairs_not_read": LoggedEvent(
        "what is asked about pairs could not be read, or how this worker stands with it not written; it is tried again",
        "the line says why",
    ),
    # models
    "model_changed": LoggedEvent("a part of the pair is not what the root was written with", "see model.on_change"),
    "preprocessing_guessed": LoggedEvent(
        "nothing says how pictures are prepared for a checkpoint file, or which GELU it has",
        "see the line's remedy, and docs/guide/checkpoints.md",
    ),
    "card_made_otherwise": LoggedEvent("the card was made from pictures read by other settings", "make the card anew"),
    "card_made_of_earlier_pixels": LoggedEvent(
        "an earlier version made the card; pixels differ by a level here and there"
    ),
    "card_not_used": LoggedEvent("the card does not belong to this pair", "see the line's remedy"),
    "bank_shrunk": LoggedEvent("there is room for fewer merged copies of the weights", "see the line's remedy"),
    "graph_refused": LoggedEvent("CUDA could not capture the forward; it runs without", "see the line's remedy"),
    "heads_encoded": LoggedEvent("the text heads of all alphas are there"),
    "head_damaged": LoggedEvent("a text head on disk is damaged, and is made anew"),
    "head_cache_not_read": LoggedEvent("text heads on disk cannot be read; they are encoded", "see the line's remedy"),
    "head_cache_not_written": LoggedEvent("text heads cannot be kept on disk", "see the line's remedy"),
    # recordings and replays
    "recording_tidied": LoggedEvent("old files or images of a recording were removed"),
    "recording_not_tidied": LoggedEvent("they could not be; it is tried again", "the line says why"),
    "labels_retried": LoggedEvent("broker or store did not answer `adawise labels`; it is tried again"),
    "recording_retried": LoggedEvent("broker or store did not answer `adawise record`; it is tried again"),
    "rehearsal_began": LoggedEvent("the recipe is run once more, without some of the classes"),
    "rehearsal_left_out": LoggedEvent("its images do not allow one; the pair is judged without", "the line says why"),
    "replay_continued": LoggedEvent("the folder holds a part of this replay, and it goes on there"),
    "states_not_taken": LoggedEvent("the states to begin with are of other settings: streams begin anew"),
    # cards, evaluation, fine-tuning
    "images_left_out": LoggedEvent("images of classes that the pair does not know"),
    "image_skipped": LoggedEvent("an image cannot be read", "the line says why"),
    "images_not_labelled": LoggedEvent("images without a label are left out"),
    "search_fit_begun": LoggedEvent("the search's numbers are fitted for the card"),
    "objective_chosen": LoggedEvent("which objective is minimised, and why"),
    "pixels_missed": LoggedEvent("tables have no statistics of pixels, and the streams want them", "make them anew"),
    "strategy_chosen": LoggedEvent("what `auto` is with this card, where strategies are compared"),
    "training_began": LoggedEvent("fine-tuning begins"),
    "epoch_finished": LoggedEvent("an epoch of fine-tuning is over"),
    "memory_estimated": LoggedEvent("what fine-tuning needs beside activations, and how large a checkpoint is"),
    "duration_estimated": LoggedEvent("how long fine-tuning will take, from its first updates"),
    "data_questioned": LoggedEvent("something about the images to learn from deserves a look", "the line says what"),
    "folders_left_empty": LoggedEvent("folders of classes without an image", "add some, or remove the folder"),
    "files_skipped": LoggedEvent("files beside the images that are none that can be read", "convert them"),
    "tracking_failed": LoggedEvent(
        "TensorBoard or MLflow cannot be told of the run, which goes on", "the line says why"
    ),
    "barrier_found": LoggedEvent("half-way between the models is worse than both", "train with a lower rate"),
}
