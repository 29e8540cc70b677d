"""The commands `edgeml samples ...`: the frames that devices brought up for the next training."""

from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from fleet.commands.connection import Why
from fleet.commands.session import Session, fleet_command

if TYPE_CHECKING:
    from fleet.resources import SampleInfo

samples_app = typer.Typer(
    help="See and take away the frames that devices brought up for the next training.",
    no_args_is_help=True,
)


class SampleReason(StrEnum):
    """Why a frame was kept; `cloud_sync.samples.CaptureReason`, without what that imports."""

    UNSURE = "unsure"
    FAILED = "failed"
    ONE_IN = "one-in"


Device = Annotated[str, typer.Option(help="Only of this device.")]
Selector = Annotated[
    str, typer.Option(help="Only of devices with these labels, such as site=north.")
]
Reasons = Annotated[
    list[SampleReason] | None,
    typer.Option(help="Only those kept for this; may be given again."),
]


@fleet_command(samples_app, "list")
def list_samples(
    fleet: Session,
    *,
    model: Annotated[str, typer.Option(help="Only of this model.")] = "",
    device: Device = "",
    selector: Selector = "",
    reason: Reasons = None,
    limit: Annotated[int, typer.Option(min=1, help="How many, the newest first.")] = 100,
) -> None:
    """List the frames that devices brought up, and what was inferred of them.

    Devices keep and bring up what the configuration asks for: capture.MODEL.upload = true. It
    takes the role operator, since frames may show people.

        edgeml samples list --model digits --reason unsure --selector site=north
    """
    found = fleet.client.samples(
        model=model, device=device, selector=selector, reasons=reason or (), limit=limit
    )
    chosen = bool(model or device or selector or reason)
    fleet.show(found, _text(found) if found else _nothing(chosen=chosen))


@fleet_command(samples_app, "pull")
def pull(
    fleet: Session,
    *,
    model: Annotated[str, typer.Option(help="Of which model.")],
    out: Annotated[Path, typer.Option(help="The folder to write to; made if it is not there.")],
    device: Device = "",
    selector: Selector = "",
    reason: Reasons = None,
    why: Why = "",
) -> None:
    """Write frames into a folder, with a table of them: samples.jsonl.

    A folder that was pulled into before, with the same choices, is gone on with: only what came
    since is fetched. Give it to edgeml convert --calibration as it is; for --evaluate write a
    labels.csv into it, or move each frame into a folder that is named like its class
    (docs/samples.md). Who pulled what, and --why, are in the audit log.

        edgeml samples pull --model digits --out hard --reason unsure
    """
    from fleet.pulled_samples import PulledFolder

    reasons = sorted(str(one) for one in reason or ())
    chosen: dict[str, Any] = {"device": device, "selector": selector, "reasons": reasons}
    folder = PulledFolder(out, {"model": model, **chosen})
    frames = size = gone = 0
    while True:
        with fleet.client.pull_samples(model, **chosen, after=folder.last, reason=why) as stream:
            done = folder.take(stream)
        frames, size, gone = frames + done.frames, size + done.bytes, gone + done.gone
        if not done.last:
            break
        fleet.remark(f"{frames} frames, {size / 1e6:.1f} MB")
    lost = f" {gone} more were deleted at the fleet meanwhile." if gone else ""
    body: dict[str, Any] = {"folder": str(out), "frames": frames, "bytes": size, "gone": gone}
    came = f"{frames} frames, {size / 1e6:.1f} MB, came into {out}, which has {folder.held}.{lost}"
    fleet.show(body, came if folder.held or gone else _nothing(chosen=True))


def _nothing(*, chosen: bool) -> str:
    """What to say instead of an empty table."""
    if chosen:
        return (
            "There are no frames of this choice. Look at the names, and whether the devices' "
            "configuration has capture.MODEL.upload = true. What there is: edgeml samples list"
        )
    return (
        "There are no frames. Devices bring them up where their configuration has "
        "capture.MODEL.upload = true (docs/samples.md)."
    )


def _text(found: "list[SampleInfo]") -> str:
    from fleet.show import table, when

    rows = [
        [
            str(one["id"]),
            one["device"],
            f"{one['model']}:{one['version']}",
            one["reason"],
            str(one["result"].get("label", "")),
            "" if one["confidence"] is None else f"{one['confidence']:.2f}",
            when(one["captured_at"]),
            f"{one['size'] / 1e3:.1f} KB",
        ]
        for one in found
    ]
    return table(["id", "device", "release", "reason", "result", "sure", "when", "size"], rows)
