"""What becomes of images, told at once: messages with predictions and alerts, on a topic of their own."""
