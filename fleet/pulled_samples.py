"""A folder of pulled frames, to be labelled and given back to `edgeml convert`.

    hard/pull.json                              of which frames it is
    hard/samples.jsonl                          a line a frame: where, when, what ran and answered
    hard/1795279438921-cam-1-3fa9c2d41e70.png   the frame, as it came; .npy of what is no picture

A frame is on the disk, and is what its digest says, before its line is. So a pull that was
interrupted goes on behind the last line, and a later one brings what has come since.
"""

import io
import json
import os
import tarfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import quote

from cloud_sync.release import digest_of
from cloud_sync.release.blobs import write_atomically
from cloud_sync.samples import MAX_SAMPLE_BYTES, MediaType
from edgeml.errors import RemoteError, UserError
from fleet.resources import SampleInfo
from fleet.sample_archive import TABLE, name_of

CHOSEN = "pull.json"
_MAX_TABLE = 512 << 20


@dataclass
class Pulled:
    """What one archive brought: its last frame's number (0: it had none), frames, bytes, gone."""

    last: int = 0
    frames: int = 0
    bytes: int = 0
    gone: int = 0


class PulledFolder:
    """See the module.

    Args:
        folder: made where it is not there.
        about: which frames it is to hold: what went by other choices would be missed in it.

    Attributes:
        held: how many frames it has.
        last: the number of the last of them; 0 where it has none.

    Raises:
        UserError: it cannot be used, is of other frames, or its table is damaged.
    """

    def __init__(self, folder: Path, about: Mapping[str, Any]) -> None:
        self._folder = folder
        self._table = folder / TABLE
        try:
            folder.mkdir(parents=True, exist_ok=True)
            self._require_same(dict(about))
            lines = self._table.read_bytes().split(b"\n") if self._table.exists() else [b""]
            *whole, torn = lines
            if torn:  # a pull that was ended in the middle of a line
                os.truncate(self._table, sum(len(line) + 1 for line in whole))
            self.held = len(whole)
            self.last = max((int(json.loads(line)["id"]) for line in whole), default=0)
        except OSError as error:
            raise UserError(
                f"The folder {folder} cannot be used.",
                why=f"{error.strerror}.",
                fix="Name another: --out.",
            ) from None
        except (ValueError, KeyError, TypeError):
            raise UserError(
                f"{self._table} is no table of pulled frames.",
                fix="Pull into a folder of its own: --out.",
            ) from None

    def _require_same(self, about: dict[str, Any]) -> None:
        chosen = self._folder / CHOSEN
        if not chosen.exists() and not self._table.exists():
            write_atomically(chosen, json.dumps(about).encode())
        elif chosen.exists() and (before := json.loads(chosen.read_bytes())) != about:
            raise UserError(
                f"The folder {self._folder} holds frames that were chosen otherwise.",
                why=f"It was pulled into with {_said(before)}, and not with {_said(about)}.",
                fix="Name another folder: --out.",
            )

    def take(self, stream: io.RawIOBase) -> Pulled:
        """Write what an archive holds.

        Raises:
            RemoteError: it is damaged, or ended too soon; what came before is kept.
            UserError: the folder cannot be written.
        """
        done = Pulled()
        try:
            with tarfile.open(fileobj=stream, mode="r|") as tar:
                members = _members(tar)
                name, table = next(members, ("", b""))
                samples: list[SampleInfo] = [json.loads(line) for line in table.splitlines()]
                if name != TABLE:
                    raise RemoteError("The fleet's archive begins with no table.")
                self._frames(samples, members, done)
        except (tarfile.TarError, ValueError, KeyError, EOFError) as error:
            raise RemoteError(
                "The fleet's archive of frames is damaged.",
                why=f"{type(error).__name__}: {error}.",
                fix="Pull again: it goes on where it stopped.",
            ) from None
        except OSError as error:
            raise UserError(
                f"{self._folder} cannot be written.",
                why=f"{error.strerror}.",
                fix="Make room or give the right to write there, and pull again: it goes on.",
            ) from None
        return done

    def _frames(
        self, samples: list[SampleInfo], members: Iterator[tuple[str, bytes]], done: Pulled
    ) -> None:
        name, data = next(members, ("", b""))
        for sample in samples:
            if name == name_of(sample):
                self._keep(sample, data)
                done.frames += 1
                done.bytes += len(data)
                name, data = next(members, ("", b""))
            else:
                done.gone += 1
            self.last = done.last = int(sample["id"])

    def _keep(self, sample: SampleInfo, data: bytes) -> None:
        if digest_of(data) != sample["digest"]:
            raise RemoteError("A frame of the fleet's archive is not what its digest says.")
        file = self._folder / file_of(sample)
        write_atomically(file, data, 0o600)
        line: dict[str, Any] = {"file": file.name, **sample}
        with self._table.open("ab") as stream:
            stream.write(json.dumps(line).encode() + b"\n")
        self.held += 1


def file_of(sample: SampleInfo) -> str:
    """The name of a frame's file: they are in order of their time.

    >>> file_of({"captured_at": 2.5, "device": "cam-1", "digest": "sha256:" + 64 * "a",
    ...          "media_type": "image/png"})
    '0000000002500-cam-1-aaaaaaaaaaaa.png'
    """
    digest = sample["digest"].removeprefix("sha256:")
    at, device = round(sample["captured_at"] * 1000), quote(sample["device"], safe="")
    return f"{at:013}-{device}-{digest[:12]}{MediaType(sample['media_type']).suffix}"


def _said(about: Mapping[str, Any]) -> str:
    """Choices as the command takes them, such as `--model digits --reason unsure`."""
    given = [(name, about[name]) for name in ("model", "device", "selector") if about[name]]
    given += [("reason", reason) for reason in about["reasons"]]
    return " ".join(f"--{name} {value}" for name, value in given)


def _members(tar: tarfile.TarFile) -> Iterator[tuple[str, bytes]]:
    for member in tar:
        most = _MAX_TABLE if member.name == TABLE else MAX_SAMPLE_BYTES
        found = tar.extractfile(member) if member.isfile() and member.size <= most else None
        if found is None:
            raise RemoteError(f"The fleet's archive holds {member.name[:80]!r}.")
        yield member.name, found.read()
