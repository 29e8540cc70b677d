"""What the tests of sources share with those of the agent and of the hardware."""

from tests.hardware.conftest import shared_models

__all__ = ["shared_models"]
