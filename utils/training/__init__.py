"""The training run and its loop."""
