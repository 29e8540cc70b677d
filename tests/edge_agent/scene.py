"""What the agent's tests look at: a folder of images, a fleet, releases good and bad."""

from pathlib import Path

import cv2
import numpy as np

from cloud_sync.messages import Configuration, SourceConfig
from cloud_sync.release import Release
from tests.cloud_sync.releases import PIPELINE, make_release
from tests.sim.fleet import SimFleet

MODEL = "toy"
DEVICE = "cam-1"
# Scales its input to almost nothing: every class is as likely, and nothing is confident.
UNSURE = PIPELINE.replace(b"factor = 0.00392156862745098", b"factor = 0.0000001")
assert UNSURE != PIPELINE


def make_images(folder: Path, count: int = 12) -> Path:
    """Noise pictures."""
    folder.mkdir(parents=True, exist_ok=True)
    random = np.random.default_rng(5)
    for index in range(count):
        cv2.imwrite(str(folder / f"{index:03}.png"), random.integers(0, 256, (24, 24), np.uint8))
    return folder


def configuration(images: Path, version: int = 1, fps: float = 100.0) -> Configuration:
    """One looping source of images for the toy model."""
    return Configuration(
        config_version=version,
        sources=(SourceConfig(name="belt", uri=f"images://{images}", model=MODEL, fps=fps),),
        telemetry_every_s=0.5,
    )


class Scene:
    """A simulated fleet with one enrolled device and some images to look at."""

    def __init__(self, folder: Path, fleet: SimFleet) -> None:
        self.folder = folder
        self.fleet = fleet
        self.data = folder / DEVICE
        self.config = fleet.enroll(DEVICE, self.data)
        self.configuration = configuration(make_images(folder / "images"))

    @property
    def device(self):  # noqa: ANN201 -- the simulator's own type
        return self.fleet.device(DEVICE)

    def release(self, version: str, **how) -> Release:  # noqa: ANN003 -- make_release's
        """Make a release and publish it."""
        layout, _ = make_release(self.folder / "releases" / version, version, **how)
        return self.fleet.publish(layout)

    def want(self, release: Release, **how) -> None:  # noqa: ANN003 -- SimFleet.desired's
        """Want a release of the toy model."""
        desired = self.fleet.desired(release, **how)
        self.fleet.want(DEVICE, {MODEL: desired}, self.configuration)

    def configure(self, configuration: Configuration) -> None:
        """Want another configuration, and the same releases."""
        self.fleet.want(DEVICE, self.device.wanted.models, configuration)
