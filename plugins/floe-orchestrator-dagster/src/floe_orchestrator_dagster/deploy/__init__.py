"""Deployment values: sizes and Helm values as plain dictionaries."""
