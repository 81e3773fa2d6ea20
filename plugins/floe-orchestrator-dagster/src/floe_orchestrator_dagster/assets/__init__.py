"""What Dagster is told of the nodes of a plan: asset specs and check specs."""
