"""Dagster Definitions of a product: steps, jobs, schedules, sensors."""
