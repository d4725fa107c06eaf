"""The model in training: its losses, one update, and its quality at any alpha between theta_0 and its weights."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import log_softmax

from adawise.card.calibration import calibration_error
from adawise.clip.skeleton import with_tensors
from adawise.clip.trunk import NoTrunkError, Trunk, cut
from adawise.errors import DivergedError, SettingsError
from adawise_lab.finetune.images import ACTIVATION_BYTES, HeldOut, HeldOutActivations, Pixels
from adawise_lab.finetune.recipe import Recipe

_MAX_LOG_SCALE = math.log(100.0)  # the limit of CLIP's own training
_BETAS = (0.9, 0.98)
_EPSILON = 1e-6
_PROMPTS_AT_ONCE = 256
_BLOCK = re.compile(r".*\b(?:resblocks|blocks|layers|layer)\.\d+\.")  # of open_clip, timm and transformers
_NUMBERED = re.compile(r"\.\d+\.")
_BELOW = re.compile(r"embed|conv1|\bbn1\b|patch|ln_pre|norm_pre|cls_token|reg_token|stem")  # below the first block


@dataclass(frozen=True, slots=True)
class HeldOutScore:
    """The score on held-out images: accuracy and calibration error in [0, 1], NLL in nats."""

    accuracy: float
    nll: float
    ece: float


class Learner:
    """The model that is trained, its optimizer, and a copy of theta_0.

    Args:
        model: open_clip's module with theta_0's weights, float32; it is trained in place.
        tokens: of the class prompts, `[C * T, L]`, class by class.
        classes: C.
        counts: the training images of each class, `[C]`, for the loss `balanced`.
        mean: of each channel, for pixels in [0, 1].
        std: of each channel, for pixels in [0, 1].
        recipe: the hyperparameters.
        device: where the model is trained.
        dtype: bfloat16 for mixed precision, float32 for none.
    """

    def __init__(
        self,
        model: Any,
        tokens: Tensor,
        *,
        classes: int,
        counts: Sequence[int],
        mean: Sequence[float],
        std: Sequence[float],
        recipe: Recipe,
        device: torch.device,
        dtype: torch.dtype,
    ) -> None:
        self.model, self.recipe = model.to(device), recipe
        self._device, self._dtype = device, dtype
        self._tokens = tokens.to(device).view(classes, -1, tokens.shape[-1])  # [C, T, L]
        self._mean = torch.tensor(mean, device=device).view(1, 3, 1, 1)
        self._std = torch.tensor(std, device=device).view(1, 3, 1, 1)
        self._log_prior = log_prior(counts).to(device)
        with torch.no_grad():
            self._head = self._encode_head()  # theta_0's, [C, D]
        self._parameters = dict(_trained(model, recipe))
        model.requires_grad_(False)
        for parameter in self._parameters.values():
            parameter.requires_grad_(True)
        self._max_log_scale = max(_MAX_LOG_SCALE, float(model.logit_scale.detach()))
        self._theta_0 = {name: p.detach().clone() for name, p in self._parameters.items()}
        groups = _groups(self._parameters, recipe)
        self._optimizer = torch.optim.AdamW(groups, recipe.learning_rate, _BETAS, _EPSILON, fused=True)

    def trunk(self, size: int) -> Trunk | None:
        """Cut the image tower before its first trained layer; None if all are trained, or it cannot be traced.

        `size` is that of an image, in pixels.
        """
        if self.recipe.blocks is None:
            return None
        trained = {name.removeprefix("visual.") for name in self._parameters if name.startswith("visual.")}
        try:
            return cut(self.model.visual.eval(), trained, (3, size, size))
        except NoTrunkError:
            return None

    def behind(self, trunk: Trunk | None, held_out: HeldOut) -> HeldOut | HeldOutActivations:
        """Return the held-out images to be classified any number of times, with a trunk that `trunk` returned.

        The layers before the cut are computed once for all of these times, unless their activations would take more
        than `ACTIVATION_BYTES`. The logits are the same bits either way.
        """
        if trunk is None or len(held_out.rows) * trunk.shape.numel() * torch.float32.itemsize > ACTIVATION_BYTES:
            return held_out
        visual = self.model.visual
        tensors = dict(visual.named_parameters(remove_duplicate=False))
        tensors |= dict(visual.named_buffers(remove_duplicate=False))
        frozen = with_tensors(trunk.trunk, tensors)

        def compute(pixels: Tensor) -> Tensor:
            with torch.no_grad(), self._autocast():
                activations: Tensor = frozen(self._normalised(pixels))
            return activations.cpu()

        return HeldOutActivations(held_out, compute, with_tensors(trunk.tail, tensors))

    def update(self, batches: Iterable[tuple[Pixels, Tensor]], rate: float) -> tuple[float, int]:
        """Make one update, and return the mean loss and the number of images.

        Args:
            batches: pixels and labels of each batch, and the number of the prompt of each image.
            rate: learning rate.

        Raises:
            DivergedError: the loss or its gradient is not finite; the weights are unchanged.
        """
        self.model.train()
        self._optimizer.zero_grad()
        total, images = 0.0, 0
        for (pixels, labels), prompts in batches:
            loss = self._loss(pixels, labels.to(self._device), prompts)
            torch.autograd.backward(loss * len(labels))
            total += float(loss.detach()) * len(labels)
            images += len(labels)
        parameters = list(self._parameters.values())
        for p in parameters:
            if p.grad is not None:
                p.grad.div_(images)
        norm = float(nn.utils.clip_grad_norm_(parameters, self.recipe.clip_norm))
        if not (math.isfinite(total) and math.isfinite(norm)):
            raise DivergedError(f"the loss is {total / images}, its gradient's length {norm}")
        for group in self._optimizer.param_groups:
            group["lr"] = rate * group.get("share", 1.0)
        self._optimizer.step()
        with torch.no_grad():
            self.model.logit_scale.clamp_(max=self._max_log_scale)
        return total / images, images

    def _loss(self, pixels: Tensor, labels: Tensor, prompts: Tensor) -> Tensor:
        smoothing, scale = self.recipe.label_smoothing, self.model.logit_scale.exp()
        with self._autocast():
            images = self.model.encode_image(self._normalised(pixels), normalize=True)
            if self.recipe.loss == "flyp":
                rows = self._tokens[labels, prompts.to(self._device)]  # [B, L]
                distinct, inverse = torch.unique(rows, dim=0, return_inverse=True)  # a prompt is encoded once
                with torch.set_grad_enabled(not self.recipe.lock_text):
                    texts = self.model.encode_text(distinct, normalize=True)[inverse]
        if self.recipe.loss == "flyp":
            return flyp(images, texts, labels, scale=scale, smoothing=smoothing)
        if self.recipe.loss == "balanced":
            return balanced(images, self._head, labels, self._log_prior, scale=scale, smoothing=smoothing)
        return cross_entropy(images, self._head, labels, scale=scale, smoothing=smoothing)

    def evaluate(
        self,
        held_out: Iterable[Pixels] | HeldOutActivations,
        alpha: float,
        on_batch: Callable[[int], object] = lambda _images: None,
    ) -> HeldOutScore:
        """Return the score of `classify`."""
        logits, labels = self.classify(held_out, alpha, on_batch)
        return HeldOutScore(
            accuracy=float((logits.argmax(dim=-1) == labels).double().mean()),
            nll=float(nn.functional.cross_entropy(logits, labels)),
            ece=calibration_error(logits.softmax(dim=-1), labels),
        )

    def classify(
        self,
        held_out: Iterable[Pixels] | HeldOutActivations,
        alpha: float,
        on_batch: Callable[[int], object] = lambda _images: None,
    ) -> tuple[Tensor, Tensor]:
        """Classify the held-out images at theta(alpha), between theta_0 and the current weights.

        Args:
            held_out: batches of pixels, or what `behind` returned.
            alpha: in [0, 1].
            on_batch: called with the number of images of each batch that was classified.

        Returns:
            Logits float64 `[N, C]` by the mean of each class's prompts, and labels `[N]`.
        """
        self.model.eval()
        parts, targets = [], []
        with torch.no_grad(), self._at(alpha):
            head = self._encode_head() if _trains_text(self.recipe) else self._head
            scale = self.model.logit_scale.exp()
            for images, labels in held_out:
                with self._autocast():
                    if isinstance(held_out, HeldOutActivations):
                        # A layer may overwrite its input: the tail is given a copy.
                        embeddings = _embeddings(held_out.tail(images.to(self._device, copy=True)))
                    else:
                        embeddings = self.model.encode_image(self._normalised(images), normalize=True)
                parts.append((scale * embeddings.float() @ head.T).cpu())
                targets.append(labels)
                on_batch(len(labels))
        return torch.cat(parts).double(), torch.cat(targets)

    @contextmanager
    def _at(self, alpha: float) -> Iterator[None]:
        """Set the weights to theta(alpha) inside the block, then restore them bit for bit."""
        if alpha == 1.0:
            yield
            return
        kept = {name: p.detach().clone() for name, p in self._parameters.items()}
        try:
            for name, p in self._parameters.items():
                torch.lerp(self._theta_0[name], kept[name], alpha, out=p.data)
            yield
        finally:
            for name, p in self._parameters.items():
                p.data.copy_(kept[name])

    def _encode_head(self) -> Tensor:
        """Return the text head, float32 `[C, D]`: the normalised mean of the unit embeddings of a class's prompts."""
        C, T, L = self._tokens.shape
        tokens = torch.split(self._tokens.view(C * T, L), _PROMPTS_AT_ONCE)
        embeddings = torch.cat([self.model.encode_text(part, normalize=True) for part in tokens])
        return nn.functional.normalize(embeddings.view(C, T, -1).mean(dim=1), dim=-1)

    def _normalised(self, pixels: Tensor) -> Tensor:
        x = pixels.to(self._device, non_blocking=True).float().div_(255.0)
        return x.sub_(self._mean).div_(self._std)

    def _autocast(self) -> torch.autocast:
        """Return a new context for each use: its cache of converted weights ends with it, so no update is missed."""
        return torch.autocast(self._device.type, dtype=torch.bfloat16, enabled=self._dtype == torch.bfloat16)

    def state(self) -> dict[str, Any]:
        """Return all that the next update depends on besides its images: weights, optimizer, torch's random state.

        The next update changes the optimizer's tensors (and on a CPU the weights) in place: write or copy them before.
        """
        weights = {name: p.detach().cpu() for name, p in self._parameters.items()}
        state: dict[str, Any] = {"weights": weights, "optimizer": self._optimizer.state_dict()}
        state["random"] = torch.get_rng_state()
        if self._device.type == "cuda":
            state["random_cuda"] = torch.cuda.get_rng_state(self._device)
        return state

    def load(self, weights: Mapping[str, Tensor]) -> None:
        """Load weights of an earlier run; all parameters that are not trained here keep theta_0's values."""
        with torch.no_grad():
            for name, p in self._parameters.items():
                p.copy_(weights[name])

    @property
    def memory_bytes(self) -> int:
        """Bytes of weights, theta_0's copy of what is trained, gradients and AdamW's two moments.

        Without activations.
        """
        whole: int = sum(p.nbytes for p in self.model.parameters())
        return whole + 4 * sum(p.nbytes for p in self._parameters.values())

    @property
    def checkpoint_bytes(self) -> int:
        """Bytes of a `state`: the trained weights, and AdamW's two moments."""
        return 3 * sum(p.nbytes for p in self._parameters.values())

    def restore(self, state: Mapping[str, Any]) -> None:
        """Restore a `state`."""
        self.load(state["weights"])
        self._optimizer.load_state_dict(state["optimizer"])
        torch.set_rng_state(state["random"])
        if self._device.type == "cuda":
            torch.cuda.set_rng_state(state["random_cuda"], self._device)


def _embeddings(output: Any) -> Tensor:
    """Return unit embeddings `[B, D]` of the image tower's result, as open_clip's `encode_image` makes them."""
    return nn.functional.normalize(output[0] if isinstance(output, tuple) else output, dim=-1)  # CoCa adds tokens


def _trained(model: nn.Module, recipe: Recipe) -> Iterator[tuple[str, nn.Parameter]]:
    """Yield the trained parameters. SigLIP's logit bias and a caption decoder have no part in our losses.

    Raises:
        SettingsError: the image tower has not the blocks of the recipe.
    """
    both = _trains_text(recipe)
    frozen = frozen_names([name for name, _ in model.named_parameters()], recipe.blocks)
    for name, parameter in model.named_parameters():
        if name.startswith("visual."):
            if name not in frozen:
                yield name, parameter
        elif both and not name.startswith(("logit_bias", "text_decoder.")):
            yield name, parameter


def frozen_names(names: Sequence[str], blocks: int | None) -> set[str]:
    """Return the parameters of the image tower that lie before its last `blocks` blocks."""
    if blocks is None:
        return set()
    check_blocks(blocks, image_blocks(names))
    above = _blocks_above(names)
    return {name for name, count in above.items() if name.startswith("visual.") and count >= blocks}


def image_blocks(names: Iterable[str]) -> int:
    """Return the number of blocks of the image tower, by the names of a model's parameters; 0 if it has none."""
    return len({match[0] for name in names if name.startswith("visual.") and (match := _BLOCK.match(name))})


def check_blocks(blocks: int, there: int) -> None:
    """Raise SettingsError unless fewer blocks are to be trained than there are."""
    if not there:
        raise SettingsError(
            f"finetune.blocks is {blocks}, but no blocks are recognised in this image tower: set it to all"
        )
    if blocks >= there:
        raise SettingsError(
            f"finetune.blocks is {blocks}, but the image tower has {there} blocks: expected less than that; all trains "
            "all layers"
        )


def _trains_text(recipe: Recipe) -> bool:
    return recipe.loss == "flyp" and not recipe.lock_text


def _groups(parameters: Mapping[str, nn.Parameter], recipe: Recipe) -> list[dict[str, Any]]:
    """Return AdamW's parameter groups: matrices, which decay, separate from the rest, and by block if rates differ."""
    above = _blocks_above(parameters) if recipe.layer_decay != 1.0 else dict.fromkeys(parameters, 0)
    groups: dict[tuple[int, float], dict[str, Any]] = {}
    for decays in (True, False):
        for name, p in parameters.items():
            if (p.ndim > 1) is decays:
                weight_decay, share = (recipe.weight_decay if decays else 0.0), recipe.layer_decay ** above[name]
                key = above[name], weight_decay if decays else -1.0
                groups.setdefault(key, {"params": [], "weight_decay": weight_decay, "share": share})["params"].append(p)
    return list(groups.values())


def _blocks_above(names: Iterable[str]) -> dict[str, int]:
    """Return how many blocks lie above each parameter in its tower: none above a head, all above an embedding."""
    above = {}
    for tower in _by_tower(names):
        blocks = [match[0] if (match := _BLOCK.match(name)) else None for name in tower]
        for place, name in enumerate(tower):
            # Parameters of the tower itself (such as its projection) are registered before its blocks, whatever their
            # place in the forward pass: only numbered ones are in order.
            after = place + 1 if _NUMBERED.search(name) else 0 if _BELOW.search(name) else len(tower)
            above[name] = len({*blocks[after:]} - {None, blocks[place]})
    return above


def _by_tower(names: Iterable[str]) -> tuple[list[str], list[str]]:
    both: tuple[list[str], list[str]] = [], []
    for name in names:
        both[name.startswith("visual.")].append(name)
    return both


def flyp(images: Tensor, texts: Tensor, labels: Tensor, *, scale: Tensor, smoothing: float = 0.0) -> Tensor:
    """Return the contrastive loss of images against prompts of their own classes (FLYP, arXiv 2212.00638), in nats.

    It is the mean of both directions, image to text and text to image. Another image of the same class is no negative:
    its pair is left out of the sums, where the usual loss would push an image away from a correct prompt.

    Args:
        images: unit embeddings `[B, D]`.
        texts: unit embeddings `[B, D]`; row i is a prompt of the class of image i.
        labels: class indices `[B]`.
        scale: factor of the cosines (exp of the model's logit scale), scalar.
        smoothing: share of the target that is spread over all pairs that count, in [0, 1).
    """
    logits = scale * images.float() @ texts.float().T  # [B, B]
    same = labels[:, None] == labels[None, :]
    left_out = same & ~torch.eye(len(labels), dtype=torch.bool, device=labels.device)
    logits = logits.masked_fill(left_out, -torch.inf)
    return (_own_pair(logits, left_out, smoothing) + _own_pair(logits.T, left_out.T, smoothing)) / 2


def _own_pair(logits: Tensor, left_out: Tensor, smoothing: float) -> Tensor:
    log_p = log_softmax(logits, dim=-1)
    loss = -log_p.diagonal()
    if smoothing > 0:
        counted = (~left_out).sum(dim=-1)
        spread = -log_p.masked_fill(left_out, 0.0).sum(dim=-1) / counted
        loss = (1 - smoothing) * loss + smoothing * spread
    return loss.mean()


def cross_entropy(images: Tensor, head: Tensor, labels: Tensor, *, scale: Tensor, smoothing: float = 0.0) -> Tensor:
    """Return the cross-entropy over all classes, in nats, for unit rows `images` `[B, D]` and `head` `[C, D]`."""
    logits = scale * images.float() @ head.float().T  # [B, C]
    return torch.nn.functional.cross_entropy(logits, labels, label_smoothing=smoothing)


def balanced(
    images: Tensor, head: Tensor, labels: Tensor, log_prior: Tensor, *, scale: Tensor, smoothing: float = 0.0
) -> Tensor:
    """Return the balanced softmax loss (Ren et al., 2020, equations 3 and 4), in nats.

    It is the cross-entropy of logits that are raised by the logarithms of the classes' frequencies. So the logits
    themselves, which are what is served, need not learn that some classes are frequent.

    Args:
        images: unit embeddings `[B, D]`.
        head: unit embeddings `[C, D]`.
        labels: class indices `[B]`.
        log_prior: of `log_prior`, `[C]`.
        scale: factor of the cosines, scalar.
        smoothing: share of the target that is spread over all classes, in proportion to their images, in [0, 1).
    """
    log_p = log_softmax(scale * images.float() @ head.float().T + log_prior, dim=-1)  # [B, C]
    loss = nn.functional.nll_loss(log_p, labels)
    if smoothing > 0:
        loss = (1 - smoothing) * loss - smoothing * (log_p @ log_prior.softmax(dim=-1)).mean()
    return loss


def log_prior(counts: Sequence[int]) -> Tensor:
    """Return the logarithm of each class's images over those of the most frequent class, float32 `[C]`.

    A class without images counts as one with the mean number of the others. So it is pushed away from images of other
    classes as it is by cross-entropy; with its own count of 0 it would not be.
    """
    n = torch.tensor(counts, dtype=torch.float64)
    n[n == 0] = n[n > 0].mean()
    return (n / n.max()).log().float()
