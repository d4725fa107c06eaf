"""theta_0 and labelled images -> theta_1: how a model is fine-tuned so that the two can be interpolated."""
