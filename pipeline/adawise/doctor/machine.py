"""Checks of the machine and its container: cores, memory, open files, HTTP port, device, and cached heads."""

from __future__ import annotations

import os
import resource
import shutil
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from tempfile import TemporaryFile

from adawise.app.machine import ROOT, cpu_quota, memory_limit_bytes, usable_cores, usable_memory_bytes
from adawise.doctor.known import CheckResult, Known, ok, skip, warn, warn_if_any
from adawise.doctor.store import existing
from adawise.errors import FatalError
from adawise.text import as_size, counted

_BASE_FILES = 96  # open files of a worker that has just begun: libraries, pipes, sockets of its clients
_FILES_A_BROKER = 8  # open files for each broker: clients that connect to it
_FETCH_BYTES = 50 * 2**20  # what kafka-python fetches at once, from all partitions together
_BYTES_A_PIXEL = 3
# Free bytes to keep heads: 21 heads of 100 classes and 512 dimensions take a quarter, 10,000 classes more than it.
_LEAST_FREE_BYTES = 16 * 2**20
_NOT_KEPT = "text heads cannot be cached, so each start encodes them again"
_GIVE_FOLDER = "Set model.cache to a folder that this user may write, or model.cache_mib to 0"
_ROOM = 1.1  # factor for what the allocator needs beyond what is requested


def cores(known: Known, root: Path = ROOT) -> CheckResult:
    """Compare the threads of the settings with the cores that may be used.

    Args:
        known: the settings, and what earlier checks found; the same in the other checks.
        root: the folder that has `proc` and the cgroups; the same in the other checks.
    """
    found, quota = usable_cores(root), cpu_quota(root)
    settings = known.settings
    limit = f", by a quota of {quota:g}" if quota is not None else ""
    has = f"{counted(found, 'core')} may be used of {os.cpu_count()}{limit}"

    def warnings() -> Iterator[str]:
        for name, threads in (("decode.threads", settings.decode.threads), ("model.threads", settings.model.threads)):
            if threads is not None and threads > 2 * found:
                yield (
                    f"{name} is {threads}, and {has}: more threads than cores slow each other down and use up a "
                    f"quota at once. Leave {name} out, or give the container more cores"
                )
        if quota is not None and quota < 1:
            yield f"{has}: a forward waits for the next period again and again. Give the container a whole core or more"

    return warn_if_any(warnings(), f"{has}; {counted(settings.decode.threads or found, 'thread')} to decode")


def memory(known: Known, root: Path = ROOT, held_bytes: int | None = None) -> CheckResult:
    """Compare the memory that a worker will hold with the memory that it may use.

    Args:
        known: see `cores`.
        root: see `cores`.
        held_bytes: bytes that this process holds with the pair in it; None: ask the system.
    """
    if known.model is None:
        return skip("needs the pair, to know its size")
    limit, settings, classifier = usable_memory_bytes(root), known.settings, known.model.classifier
    if not limit:
        return skip("the machine does not report its memory")
    held = _held_bytes() if held_bytes is None else held_bytes
    bank = classifier.bank.capacity * classifier.bank.copy_bytes if classifier.device.where.type == "cpu" else 0
    inflight = settings.limits.inflight_mib * 2**20
    record = settings.record.inflight_mib * 2**20 if settings.record.enabled else 0
    fetched = max(_FETCH_BYTES, settings.kafka.max_partition_fetch_bytes)
    needed = int(_ROOM * (held + bank + inflight + record + fetched))
    threads = settings.decode.threads or usable_cores(root)
    worst = needed + threads * settings.decode.max_pixels * _BYTES_A_PIXEL
    parts = (
        f"{as_size(held)} for the program and the pair, {as_size(bank)} for {classifier.bank.capacity} merged copies "
        f"(model.bank_mib), {as_size(inflight)} for messages (limits.inflight_mib)"
        + (f", {as_size(record)} for the recording (record.inflight_mib)" if record else "")
        + f", {as_size(fetched)} for fetched messages"
    )
    whose = "the container's limit" if memory_limit_bytes(root) == limit else "this machine"
    if needed > limit:
        raise FatalError(
            f"expected {as_size(needed)} of memory: {parts}; but {whose} has {as_size(limit)}, so the worker would "
            "be killed. Lower model.bank_mib or limits.inflight_mib, or give it more memory."
        )

    def warnings() -> Iterator[str]:
        if worst > limit:
            yield (
                f"{as_size(needed)} of {as_size(limit)} are enough ({parts}), but not when "
                f"{counted(threads, 'thread')} decode pictures of decode.max_pixels ({settings.decode.max_pixels}) at "
                f"once, which takes {as_size(worst)}. Lower decode.max_pixels or decode.threads, or give it more memory"
            )
        if classifier.device.where.type == "cuda":
            yield from _too_much_for_the_card(known)

    return warn_if_any(warnings(), f"{as_size(needed)} of {as_size(limit)}: {parts}")


def open_files(known: Known) -> CheckResult:
    """Compare the number of files that a worker has open at once with its limit."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    partitions, brokers = len(known.topic.partitions), known.cluster.brokers
    threads = known.settings.decode.threads or usable_cores()
    needed = _BASE_FILES + _FILES_A_BROKER * (brokers + 1) + 2 * partitions + threads
    opened = f"{counted(brokers, 'broker')}, {counted(partitions, 'partition')}, {counted(threads, 'thread')}"
    if soft == resource.RLIM_INFINITY or soft >= 2 * needed:
        shown = "any number" if soft == resource.RLIM_INFINITY else soft
        return ok(f"{shown} at once; {needed} are enough ({opened})")
    remedy = f"Raise it (`ulimit -n {max(1024, 4 * needed)}`, LimitNOFILE= of a service; the hard limit is {hard})"
    if soft < needed:
        raise FatalError(f"expected {needed} open files or more ({opened}), and the limit is {soft}. {remedy}.")
    return warn(f"the limit is {soft} open files, and up to {needed} are needed ({opened}): that is close. {remedy}")


def http_port(known: Known) -> CheckResult:
    """Check that the port can be bound, and that the page will be shown there."""
    from adawise.settings.http import PORT
    from adawise.watch.web.server import listen, url_of

    http = known.settings.http
    with closing(listen(http.listen, http.port, PORT)) as bound:
        url, port = url_of(bound), bound.getsockname()[1]
    if not http.is_loopback and http.token is None:
        return warn(
            f"{url} can be reached by others, and http.token is not set: so there is no page, and probes and "
            "metrics are open. Set http.token, or http.listen to 127.0.0.1"
        )
    taken = f"; {PORT} is taken, so it is the next free one" if http.port is None and port != PORT else ""
    return ok(f"{url if http.port != 0 else 'any port'} is free{taken}")


def device(known: Known) -> CheckResult:
    """Check that the device of the settings answers, and say which number format runs there."""
    import torch

    from adawise.app.model import number_format, open_device

    opened = open_device(known.settings.model)
    precision = str(number_format(known.settings.model, opened)).removeprefix("torch.")
    precision += " by the rule for new roots" if known.settings.model.precision == "auto" else ""
    if opened.where.type != "cuda":
        if torch.cuda.device_count():  # counted by the driver, which works where CUDA does not start
            return warn(
                f"{opened} in {precision}, although there is a GPU: model.device is cpu, or CUDA does not start on "
                "it. Check `nvidia-smi`, and that torch was built for its driver"
            )
        return ok(f"{opened} in {precision}; there is no GPU")
    free, total = torch.cuda.mem_get_info(opened.where)
    return ok(
        f"{torch.cuda.get_device_name(opened.where)} as {opened.where} in {precision}: {as_size(free)} of "
        f"{as_size(total)} free, CUDA {torch.version.cuda}, driver {_driver() or 'unknown'}"
    )


def text_heads(known: Known) -> CheckResult:
    """Check that heads can be kept for the next start, and have room. Without, each start encodes them anew."""
    from adawise.app.model import heads_folder

    wanted, folder = known.settings.model.cache_mib * 2**20, heads_folder(known.settings.model)
    if not wanted:
        return ok("none are cached (model.cache_mib is 0)")
    if folder is None:
        return warn(f"{_NOT_KEPT}: this user has no home folder. {_GIVE_FOLDER}")
    there = existing(folder)
    if why := _not_writable(there):
        return warn(f"{_NOT_KEPT}: {there}: {why}. {_GIVE_FOLDER}")
    free = shutil.disk_usage(there).free
    if free < _LEAST_FREE_BYTES:
        return warn(
            f"{_NOT_KEPT}: {folder} has {as_size(free)} of free space. Free space, or set model.cache to another folder"
        )
    return ok(f"cached in {folder}, at most {as_size(wanted)}; {as_size(free)} free")


def _not_writable(folder: Path) -> str:
    """Return why no file can be made there; "" if one can be."""
    try:
        with TemporaryFile(dir=folder) as file:
            file.write(b"0")
    except OSError as error:
        return error.strerror or str(error)
    return ""


def _too_much_for_the_card(known: Known) -> Iterator[str]:
    """Yield a warning if the merged copies do not fit into the GPU memory that is free."""
    import torch

    assert known.model is not None
    bank, where = known.model.classifier.bank, known.model.classifier.device.where
    free, total = torch.cuda.mem_get_info(where)
    needed = bank.capacity * bank.copy_bytes
    if needed > free:
        yield (
            f"{bank.capacity} merged copies (model.bank_mib) take {as_size(needed)}, and {as_size(free)} of "
            f"{as_size(total)} on {where} are free: the bank shrinks, and copies are merged again more often. "
            "Lower model.bank_mib, or give the worker a separate GPU"
        )


def _driver() -> str:
    """Return the version of NVIDIA's driver; "" if it is not known."""
    try:
        words = Path("/proc/driver/nvidia/version").read_text().split()
    except OSError:
        return ""
    return next((word for word in words if word[:1].isdigit()), "")


def _held_bytes() -> int:
    """Return the resident memory of this process in bytes; 0 if it is not known."""
    try:
        return int(Path("/proc/self/statm").read_text().split()[1]) * resource.getpagesize()
    except (OSError, ValueError, IndexError):
        return 0
