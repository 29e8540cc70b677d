"""Worked examples; each folder has a README."""
