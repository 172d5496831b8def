"""Speed and distance to a reference, one module for each subject: `python -m benchmarks [name ...]`.

A module has `TITLE`, `HEAD` (column names) and `rows()`, which yields one tuple of cells for each measurement.
"""
