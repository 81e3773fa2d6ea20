"""Exit codes of the command line."""

from __future__ import annotations

HAS_PROBLEMS = 1
DIFFERENT = 1
FAILED = 1
PRODUCT_WRONG = 3
DBT_UNUSABLE = 4
INTERRUPTED = 130

EXIT_CODES = """\
Exit codes:
    0  everything was built and no test of error severity failed
    1  a node or a test failed, or was skipped
    2  wrong usage, a selection that cannot be used, or no run to retry
    3  the product or its files are wrong
    4  dbt could not run at all
  130  interrupted; dbt was stopped
"""
