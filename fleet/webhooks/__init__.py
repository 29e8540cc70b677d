"""Webhooks: CloudEvents, signed, sent from an outbox in the database until they are taken."""
