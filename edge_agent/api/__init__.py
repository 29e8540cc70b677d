"""The local API: what programs and people beside the device may ask of the agent.

Nothing of it is imported unless it was asked for (`edgeml agent run --api`). The Open Inference
Protocol v2, Prometheus metrics, the last frame as a picture and a page to look at, over loopback
or a Unix socket; see docs/local-api.md.
"""
