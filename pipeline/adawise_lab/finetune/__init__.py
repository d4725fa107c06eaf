"""Fine-tuning of theta_0 on labelled images into a theta_1 that can be interpolated with it."""
