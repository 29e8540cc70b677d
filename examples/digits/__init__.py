"""Handwritten digits on a conveyor belt: a model, its data and a camera with ground truth."""
