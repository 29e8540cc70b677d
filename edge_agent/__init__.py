"""The daemon on the device: runs a release, tests and swaps updates, reports."""
