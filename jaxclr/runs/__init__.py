"""The folder of a run: configuration, checkpoints, logs, and how they are written and read."""
