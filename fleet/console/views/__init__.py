"""What pages show, as values: pure functions from the fleet's resources, without a browser."""
