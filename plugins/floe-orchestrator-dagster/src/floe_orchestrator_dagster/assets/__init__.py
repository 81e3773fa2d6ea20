"""The nodes of a plan in Dagster: asset specs, check specs, partitions."""
