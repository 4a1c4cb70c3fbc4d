"""Training: data, losses, loop and evaluation."""
