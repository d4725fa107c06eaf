"""What each loss makes of classes of uneven frequency: `cross_entropy`, `finetune.balanced`, and `balanced`.

    python -m tools.method.skewed FOLDER [--seeds 5] [--images 1500] [--zipf 1.5] [--absent 0] [--variants NAMES]

The demo's theta_0 is fine-tuned on images of a site of camera traps (`tools.method.trap_site`), of which the class of
rank r has a share of r^-zipf; which class has which rank is drawn anew for each seed. The last `--absent` ranks have
no image. Test images are of the same cameras and the same year, equally many of each class. On test images as skewed as
the training images, accuracy is the mean of the recalls, weighted by the shares of the classes.

Rare classes are the last three that have images. The epoch is chosen as `finetune` does it, by accuracy on held-out
images, which are as skewed as the others; rows of `macro` choose it by the mean of the recalls on them.
"""

from __future__ import annotations

import argparse
from collections import defaultdict
from collections.abc import Mapping
from datetime import timedelta
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq
import torch
from torch import Tensor

from adawise.demo.main import PAIR
from adawise.demo.scene import CLASSES, RUN, StreetCamera
from adawise.settings import Settings
from adawise_lab.finetune.folder import Folder
from adawise_lab.finetune.images import HeldOut
from adawise_lab.finetune.train import Epoch
from adawise_lab.finetune.training import Begin, for_run, job_of, prepare, read_data, starting_model
from tools.method.trap_site import BEGINS, Events, Site

VARIANTS: Mapping[str, Mapping[str, object]] = {
    "cross_entropy": {},
    "finetune.balanced": {"balanced": True},
    "balanced": {"loss": "balanced"},
}
ALPHAS = (0.0, 0.25, 0.5, 0.75, 1.0)
FIGURES = ("balanced images", "skewed images", "rare", "absent")
CAMERAS, RARE, TEST_EACH, BATCH = 20, 3, 60, 64
_YEAR_S, _VIEWS, _LATER = 365 * 86_400, 500_000, 100_000
Floats = npt.NDArray[np.float64]


def counts(images: int, zipf: float, absent: int) -> list[int]:
    """Return how many images the class of each rank has: `images` together, and none of the last `absent` ranks."""
    shares = np.arange(1, len(CLASSES) - absent + 1) ** -zipf
    return [round(images * share) for share in shares / shares.sum()] + [0] * absent


def draw(path: Path, each: Mapping[str, int], site: Site, first: int) -> None:
    """Write images of the site's cameras, so many of each class, as a Parquet file; events from `first` on."""
    rng = np.random.default_rng((site.seed, first))
    streets = [StreetCamera(f"{k}", _VIEWS + k, runs=True) for k in range(site.cameras)]
    events = [Events(first) for _ in streets]
    images, labels = list[bytes](), list[str]()
    for label, count in each.items():
        for _ in range(count):
            k = int(rng.integers(site.cameras))
            number = RUN * events[k].next(streets[k], label) + int(rng.integers(RUN))
            weather = site.weather(BEGINS + timedelta(seconds=int(rng.integers(_YEAR_S))))
            images.append(streets[k].jpeg(number, weather)[0])
            labels.append(label)
    pq.write_table(pa.table({"image": images, "label": labels}), path)


def recalls(logits: Tensor, labels: Tensor) -> Floats:
    """Return the recall of each class, `[C]`; nan without images."""
    right = (logits.argmax(dim=-1) == labels).double()
    found = [right[labels == k].mean().item() for k in range(logits.shape[1])]
    return np.array(found)


def settings_of(folder: Path, changes: Mapping[str, object], seed: int, args: argparse.Namespace) -> Settings:
    """Return the settings of a run on the demo's theta_0."""
    (folder / "classes.txt").write_text("".join(f"{name}\n" for name in CLASSES))
    theta_0 = f"local-dir:{PAIR / 'theta_0'}"
    model = {"architecture": theta_0, "theta_0": theta_0, "classes": folder / "classes.txt"}
    model |= {"templates": PAIR / "templates.txt", "device": "cpu", "precision": "fp32", "threads": 1}
    recipe = {
        "epochs": args.epochs,
        "batch_images": BATCH,
        "seed": seed,
        "blocks": args.blocks,
        "patience": args.epochs,
    }
    recipe |= {"learning_rate": args.rate, "label_smoothing": args.smoothing, **changes}
    return Settings.model_validate({"model": model, "finetune": recipe, "decode": {"threads": 1}})


def trained(folder: Path, changes: Mapping[str, object], seed: int, args: argparse.Namespace) -> dict[str, Floats]:
    """Fine-tune on train.parquet, and return recalls `[A, C]` on test.parquet by how the epoch was chosen."""
    settings = settings_of(folder, changes, seed, args)
    data, test = (read_data(settings, folder / "train.parquet", other) for other in (None, folder / "test.parquet"))
    start = starting_model(settings)
    settings = for_run(settings, start, len(data.train_rows))
    output = Folder(folder / "run")
    with (
        job_of(settings, data, output, start.preprocess) as job,
        job_of(settings, test, output, start.preprocess) as of_test,
    ):
        run = job.run(start)
        judged = run.learner.behind(
            run.learner.trunk(start.preprocess.size), HeldOut(of_test.held_out_images, test.held_out_rows, BATCH)
        )
        prepare(run, job, start, Begin(False, None))
        best, kept = -1.0, dict[str, Tensor]()

        def on_epoch(row: Epoch) -> None:
            nonlocal best, kept
            macro = float(np.nanmean(recalls(*run.learner.classify(run.held_out, 1.0))))
            if macro > best:
                best, kept = macro, {name: p.detach().clone() for name, p in run.learner.model.named_parameters()}

        run.start()
        run.go(on_epoch=on_epoch)
        run.compare()  # loads the weights of the best epoch
        found = {}
        for name in ("", "macro"):
            if name:
                run.learner.load(kept)
            found[name] = np.stack([recalls(*run.learner.classify(judged, alpha)) for alpha in ALPHAS])
    return found


def figures(recall: Floats, each: Mapping[str, int]) -> Floats:
    """Return `FIGURES` of recalls `[A, C]`, as `[A, 4]`; nan for absent classes if there are none."""
    n = np.array([each[name] for name in CLASSES], dtype=float)
    there = np.flatnonzero(n)
    rare = there[np.argsort(n[there])[:RARE]]
    absent = np.flatnonzero(n == 0)
    missing = recall[:, absent].mean(axis=1) if len(absent) else np.full(len(recall), np.nan)
    return np.stack(
        [recall[:, there].mean(axis=1), recall @ (n / n.sum()), recall[:, rare].mean(axis=1), missing], axis=1
    )


def main() -> None:
    """Print means over the seeds in percent, and differences from the first variant with their standard errors."""
    parser = argparse.ArgumentParser(prog="python -m tools.method.skewed", description=main.__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--seeds", type=int, default=5, help="two at least")
    parser.add_argument("--images", type=int, default=1500)
    parser.add_argument("--zipf", type=float, default=1.5)
    parser.add_argument("--absent", type=int, default=0)
    parser.add_argument("--epochs", type=int, default=10)
    parser.add_argument("--blocks", default="auto")
    parser.add_argument("--rate", default="auto")
    parser.add_argument("--smoothing", type=float, default=0.0)
    parser.add_argument("--variants", nargs="+", default=list(VARIANTS))
    args = parser.parse_args()
    torch.set_num_threads(1)
    rows: dict[str, list[Floats]] = defaultdict(list)
    for seed in range(args.seeds):
        folder = args.folder / f"{args.images}-{args.zipf:g}-{args.absent}-{seed}"
        ranks = np.random.default_rng((seed, 1)).permutation(CLASSES).tolist()
        each = dict(zip(ranks, counts(args.images, args.zipf, args.absent), strict=True))
        if not (folder / "test.parquet").exists():
            folder.mkdir(parents=True, exist_ok=True)
            site = Site(CAMERAS, seed=seed)
            draw(folder / "train.parquet", each, site, 0)
            draw(folder / "test.parquet", dict.fromkeys(CLASSES, TEST_EACH), site, _LATER)
        for variant in args.variants:
            found = trained(folder, VARIANTS[variant], seed, args)
            for how, recall in found.items():
                rows[f"{variant} {how}".rstrip()].append(figures(recall, each))
            print(f"seed {seed}, {variant}: {np.round(100 * rows[variant][-1][-1], 1).tolist()}", flush=True)
    first = np.array(next(iter(rows.values())))
    print(f"\n| | alpha | {' | '.join(FIGURES)} |\n|{'---|' * (2 + len(FIGURES))}")
    for name, of_seeds in rows.items():
        over = np.array(of_seeds) - first  # seed by seed
        mean, error = np.mean(of_seeds, axis=0), over.std(axis=0, ddof=1) / np.sqrt(len(of_seeds))
        for a, alpha in enumerate(ALPHAS):
            columns = zip(mean[a], over.mean(axis=0)[a], error[a], strict=True)
            cells = [f"{100 * m:.1f} ({100 * d:+.1f} ±{100 * e:.1f})" for m, d, e in columns]
            print(f"| {name} | {alpha:g} | {' | '.join(cells)} |")


if __name__ == "__main__":
    main()
