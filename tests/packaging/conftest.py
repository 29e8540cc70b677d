"""A fleet and a device for it, as the agent's own tests have them."""

from tests.edge_agent.conftest import scene

__all__ = ["scene"]
