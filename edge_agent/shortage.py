"""What a device lacks now and may have again: room on its disk, memory."""

from edgeml.errors import DeviceError


class Shortage(DeviceError):  # noqa: N818 -- a state of things, more than a fault
    """The device has too little of something now.

    What was refused for it is taken up again when there is enough.
    """
