"""Making and judging pairs of models: fine-tuning, cards, evaluation on labelled images."""
