"""What all routes of the REST API share: cursors, ETags, idempotency keys, bounds."""
