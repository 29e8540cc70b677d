"""What the API gives of cost: prices, and what a rollout took in bytes and money."""

# pydantic wants this one before Python 3.12
from typing_extensions import TypedDict


class PriceInfo(TypedDict):
    """What a megabyte (1,000,000 bytes) costs the devices that a selector chooses."""

    selector: str
    per_mb: float


class PricesInfo(TypedDict):
    """The prices, in order: the first that chooses a device counts."""

    currency: str
    prices: list[PriceInfo]


class DeviceCost(TypedDict):
    """What a rollout cost a device; `money` is null where it has no price."""

    device: str
    bytes: int
    money: float | None


class CostSummary(TypedDict):
    """What a rollout cost so far; `money` leaves out the `unpriced` devices, null where all are.

    `energy_per_inference_j` is of its release on those of its devices that measure energy, since
    it began; `energy_devices` is how many these are, 0 where none does.
    """

    currency: str
    bytes: int
    money: float | None
    unpriced: int
    energy_per_inference_j: float | None
    energy_devices: int


class CostInfo(CostSummary):
    """What a rollout cost so far, in all and each device, the most expensive first."""

    devices: list[DeviceCost]
