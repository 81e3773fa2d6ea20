"""The nodes of a plan as Dagster knows them: asset specs, check specs, partitions."""
