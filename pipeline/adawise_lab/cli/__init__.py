"""The commands `finetune`, `card` and `evaluate`."""
