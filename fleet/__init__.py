"""The server: registry, devices, rollouts, ingest, REST API and console."""
