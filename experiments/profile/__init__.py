"""`mekax profile`: what a step costs in time, memory and communication, next to Adam's."""

TABLES = (
    *("models", "parameters", "batch", "per example", "chunks"),
    *("BackPACK", "recording", "communication"),
)
