"""Which of open_clip's architectures make a pair, and whether theta(alpha) is open_clip's own model at those weights.

    python -m tools.method.families [NAME ...]

For each family its smallest member, with random weights: two checkpoints are written, loaded as a worker loads them,
and mixed; features of images and texts are compared with open_clip's model, loaded with the mixture of the state dicts.
What a model hub would bring is made here, for which the extra `hf` is needed: a tokenizer of few words, and a small
text tower of the same kind. Wide towers are cut to two blocks.
"""

from __future__ import annotations

import argparse
import tempfile
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import open_clip
import torch
from open_clip import factory
from safetensors.torch import save_file
from torch import Tensor, nn

from adawise.clip.bank import Bank
from adawise.clip.load import CheckpointPair, load_checkpoints
from adawise.errors import CheckpointError

FAMILIES = (
    *("ViT-S-32", "ViT-B-32", "ViT-B-32-quickgelu", "ViT-M-32-alt", "ViT-L-14", "RN50", "convnext_tiny"),
    *("coca_ViT-B-32", "EVA02-B-16", "swin_base_patch4_window7_224", "vit_medium_patch16_gap_256"),
    *("vit_relpos_medium_patch16_cls_224", "ViT-L-14-CLIPA", "PE-Core-T-16-384", "ViTamin-S", "ViTamin-S-LTT"),
    *("MobileCLIP-S1", "MobileCLIP-B", "MobileCLIP2-S0", "MobileCLIP2-S3", "ViT-B-16-SigLIP", "ViT-B-32-SigLIP2-256"),
    *("ViT-H-14-worldwide", "roberta-ViT-B-32", "xlm-roberta-base-ViT-B-32", "mt5-base-ViT-B-32"),
    *("nllb-clip-base", "nllb-clip-base-siglip"),
)
ALPHA, IMAGES = 0.35, 2
CUT = 1000  # width of a tower above which two blocks do
_KINDS = {"roberta": "Roberta", "xlm-roberta": "XLMRoberta", "mt5": "MT5", "nllb": "M2M100"}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="*", default=FAMILIES)
    print("| architecture | M parameters | prepared as | largest difference: images, texts |\n|---|---|---|---|")
    for name in parser.parse_args().names:
        with tempfile.TemporaryDirectory() as folder:
            try:
                found = tried(name, Path(folder))
            except CheckpointError as error:
                found = f"- | refused | {error}"
            print(f"| {name} | {found} |", flush=True)


def tried(name: str, folder: Path) -> str:
    """One row. Raises CheckpointError: it makes no pair."""
    fit_to_this_machine(name, folder)
    torch.manual_seed(0)
    zero = open_clip.create_model(name, pretrained_text=False)
    with torch.no_grad():
        for p in zero.parameters():
            p.copy_(0.05 * torch.randn_like(p) if p.ndim > 1 else p + 0.1 * torch.randn_like(p))
    states = [{key: tensor.clone().contiguous() for key, tensor in zero.state_dict().items()} for _ in range(2)]
    for key, p in zero.named_parameters():
        states[1][key] = p.detach() + 0.02 * torch.randn_like(p)
    for end, state in enumerate(states):
        save_file(state, folder / f"{end}.safetensors")
    pair = load_checkpoints(name, str(folder / "0.safetensors"), str(folder / "1.safetensors"))
    mixed = {
        key: torch.lerp(tensor, states[1][key], ALPHA) if tensor.is_floating_point() else tensor
        for key, tensor in states[0].items()
    }
    del zero
    theirs = open_clip.create_model(name, pretrained_text=False, quick_gelu=pair.preparation.values["quick_gelu"])
    theirs.load_state_dict(mixed)
    size = sum(p.numel() for p in theirs.parameters()) / 1e6
    differences = compared(pair, theirs.eval())
    return f"{size:.0f} | {pair.preprocess.id} | {', '.join(f'{difference:.0e}' for difference in differences)}"


@torch.no_grad()
def compared(pair: CheckpointPair, theirs: Any) -> tuple[float, float]:
    """Largest differences of unit vectors: of images, and of texts."""
    bank = Bank(
        pair.tower,
        pair.theta_0,
        pair.theta_1,
        alphas=(0.0, ALPHA, 1.0),
        dtype=torch.float32,
        device=torch.device("cpu"),
        budget_bytes=0,
    )
    pixels = torch.randn(IMAGES, 3, pair.preprocess.size, pair.preprocess.size)
    features = bank.tower(1)(pixels)
    ours = nn.functional.normalize(features[0] if isinstance(features, tuple) else features, dim=-1)
    texts = theirs.encode_text(pair._tokenizer(["a photo of a cat."]), normalize=True)
    head: Tensor = pair.prompts(["cat"], ["a photo of a {}."]).head(ALPHA)
    images = theirs.encode_image(pixels, normalize=True)
    return float((ours - images).abs().max()), float((head.T - texts).abs().max())


def fit_to_this_machine(name: str, folder: Path) -> None:
    """Let open_clip know the architecture with fewer blocks, and with what a hub would bring made here."""
    config = open_clip.get_model_config(name)
    for part in ("vision_cfg", "text_cfg"):
        if config[part].get("width", 0) >= CUT and isinstance(config[part].get("layers"), int):
            config[part]["layers"] = 2
    text = config["text_cfg"]
    if "hf_tokenizer_name" in text or "hf_model_name" in text:
        if find_spec("transformers") is None:
            raise CheckpointError("needs the extra hf")
        write_tokenizer(folder)
        text["hf_tokenizer_name"] = str(folder)
        text["vocab_size" if "vocab_size" in text else "hf_model_name"] = 400 if "vocab_size" in text else str(folder)
    if "hf_model_name" in text:
        import transformers

        kind = next(kind for start, kind in _KINDS.items() if name.startswith(start))
        sizes = {"hidden_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 128}
        of_t5 = {"d_model": 64, "d_kv": 16, "num_layers": 2, "num_heads": 4, "d_ff": 128}
        of_m2m = {"encoder_layers": 2, "encoder_attention_heads": 4, "encoder_ffn_dim": 128, "decoder_layers": 1}
        wanted = {"MT5": of_t5, "M2M100": {**of_m2m, "d_model": 64}}.get(kind, sizes)
        getattr(transformers, f"{kind}Config")(vocab_size=400, **wanted).save_pretrained(folder)
    factory._MODEL_CONFIGS[name] = config


def write_tokenizer(folder: Path) -> None:
    """One that knows the words of our prompts."""
    from tokenizers import Tokenizer, models, pre_tokenizers, processors, trainers
    from transformers import PreTrainedTokenizerFast

    special = ["<s>", "<pad>", "</s>", "<unk>"]
    made = Tokenizer(models.BPE(unk_token="<unk>"))
    made.pre_tokenizer = pre_tokenizers.Whitespace()
    made.train_from_iterator(["a photo of a cat dog car"], trainers.BpeTrainer(vocab_size=300, special_tokens=special))
    made.post_processor = processors.TemplateProcessing(single="<s> $A </s>", special_tokens=[("<s>", 0), ("</s>", 2)])
    words = PreTrainedTokenizerFast(
        tokenizer_object=made,
        **{"bos_token": "<s>", "pad_token": "<pad>", "eos_token": "</s>", "sep_token": "</s>", "unk_token": "<unk>"},
    )
    words.save_pretrained(folder)


if __name__ == "__main__":
    main()
