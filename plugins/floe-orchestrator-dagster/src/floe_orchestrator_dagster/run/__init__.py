"""Inside a Dagster run: the launch, the dbt commands, and the events for Dagster."""
