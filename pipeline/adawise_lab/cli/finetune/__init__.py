"""The command `finetune`, which makes the fine-tuned model from labelled images."""
