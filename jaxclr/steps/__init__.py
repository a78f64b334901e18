"""The training step: state, batches, views, optimizers and the programs that run on devices."""
