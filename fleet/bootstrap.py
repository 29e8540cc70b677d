"""Files with which devices enrol on their first boot, and the CSV that they are made from."""

import csv
import io
from pathlib import Path

import msgspec

from cloud_sync.address import require_private
from cloud_sync.release import write_atomically
from edgeml.errors import UserError
from fleet.resources import EnrollmentToken

_MODE = 0o600


def read_devices(text: str) -> dict[str, dict[str, str]]:
    r"""Devices and their labels from a CSV: a column `device`, and one for each label.

    >>> read_devices("device,site\ncam-1,north\ncam-2,\n")
    {'cam-1': {'site': 'north'}, 'cam-2': {}}

    Raises:
        UserError: it has no such column, no devices, or one of them twice.
    """
    rows = csv.DictReader(io.StringIO(text), restkey="", restval="")
    if "device" not in (rows.fieldnames or ()):
        raise UserError(
            "The list of devices cannot be used.",
            why="It has no column named device.",
            fix="Begin it with a line such as: device,site",
        )
    found: dict[str, dict[str, str]] = {}
    for number, row in enumerate(rows, 2):
        device = row["device"].strip()
        if not device or "" in row or device in found:
            why = f"has {device} again" if device in found else "has no device, or too many columns"
            raise UserError(
                "The list of devices cannot be used; no token was made.",
                why=f"Line {number} {why}.",
                fix="Write one line for each device, a column for each label.",
            )
        found[device] = {
            key.strip(): value.strip()
            for key, value in row.items()
            if key != "device" and value.strip()
        }
    if not found:
        raise UserError(
            "The list of devices is empty.", fix="Write a line for each device below: device,site"
        )
    return found


def tokens_csv(tokens: list[EnrollmentToken]) -> str:
    """The tokens as CSV: device, token, expires_at."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(("device", "token", "expires_at"))
    writer.writerows((t["device"], t["token"], f"{t['expires_at']:.0f}") for t in tokens)
    return text.getvalue()


def bootstrap_text(token: EnrollmentToken, devices_url: str, now: float) -> str:
    """A bootstrap file's text; `now` is by the fleet's clock, in Unix seconds.

    Raises:
        UserError: the address would be spoken to without TLS over a network.
    """
    scheme, separator, rest = devices_url.partition("://")
    host = rest.partition("/")[0].rpartition(":")[0] or rest
    if not separator or not host:
        raise UserError(f"{devices_url[:80]!r} is no address.", fix="Write https://HOST:8081.")
    require_private(scheme, host.strip("[]"), of="fleet")
    fields = {
        "fleet": devices_url,
        "device": token["device"],
        "token": token["token"],
        "made_at": int(now),
        "expires_at": int(token["expires_at"]),
    }
    head = "# For a first boot: the agent enrols with it and removes it. See docs/enrolment.md.\n"
    rows = (f"{name} = {msgspec.json.encode(value).decode()}\n" for name, value in fields.items())
    return head + "[bootstrap]\n" + "".join(rows)


def write_private(path: Path, text: str) -> None:
    """Write a file with a token in it, for its owner alone.

    Raises:
        UserError: it cannot be written.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        write_atomically(path, text.encode(), _MODE)
    except OSError as error:
        raise UserError(f"{path} cannot be written.", why=f"{error.strerror}.") from None
