"""Measures the plugin against bare dbt, raw dagster-dbt and the released plugin."""
