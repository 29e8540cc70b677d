"""Trained model in, release out: the build host's part of edgeml."""
