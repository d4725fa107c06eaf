"""The command `finetune`: the fine-tuned model from labelled images."""
