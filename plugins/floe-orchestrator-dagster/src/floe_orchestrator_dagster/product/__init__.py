"""One data product: its artifacts, its project, its plan, and how they are prepared and opened."""
