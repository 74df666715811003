"""`mekax compare`: optimizers side by side, with the same start, data order and budget."""
