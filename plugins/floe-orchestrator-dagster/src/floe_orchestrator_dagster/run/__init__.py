"""Inside a Dagster run: what was launched, what dbt makes of it, and what Dagster is told."""
