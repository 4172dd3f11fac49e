"""Measurements, each a command: `python -m benchmarks.<name>`. The last line printed is its figures as JSON."""
