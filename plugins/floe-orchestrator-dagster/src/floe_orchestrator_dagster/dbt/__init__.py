"""Running dbt: the command, its process, and the typed events that it reports."""
