"""Test problems, one file per family; `registry` has their names."""
