"""Returns deployment values, the sizes and Helm values, as plain dictionaries."""
