"""Did adapting alpha help? Accuracies where labels are, estimates where they are not."""
