"""`mekax bench`: what a step costs in time and memory, next to Adam's in the same process."""
