"""Running dbt: the command, the process it runs in, and what it reports as typed events."""
