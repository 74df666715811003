"""A benchmark of self-tuning: many optimizers on a varied suite, each cell small."""
