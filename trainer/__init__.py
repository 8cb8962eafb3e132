"""Shards in, checkpoints out: models, optimizers, the loop, checkpoints."""
