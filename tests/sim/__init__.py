"""Simulators that are steered by assignment, behind the interfaces that the product uses."""
