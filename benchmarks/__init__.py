"""What is fast, measured beside peers: `python -m benchmarks.NAME [--quick] [--json]`."""
