"""Alerts: conditions that a person should know of, found in the database, told by webhooks."""
