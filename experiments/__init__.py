"""Test problems, comparisons, reproductions, plots and the command line."""
