"""`mekax benchmark`: self-tuning against swept baselines and others, on a suite of problems."""
