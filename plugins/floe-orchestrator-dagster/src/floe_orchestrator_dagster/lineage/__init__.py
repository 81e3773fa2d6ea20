"""OpenLineage of every run and node: what it says, what things are called, how it gets there."""
