"""Describes every run and node as OpenLineage events and delivers them to a backend."""
