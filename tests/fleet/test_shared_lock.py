"""A lock between processes: files that several of them write are never torn."""

import subprocess
import sys
from pathlib import Path

from fleet.identity_ledger import Ledger, Revoked
from fleet.incarnation import Head, HeadFile

WRITER = """
import sys
from pathlib import Path
from fleet.identity_ledger import Ledger, Revoked
from fleet.incarnation import HeadFile
folder, name = Path(sys.argv[1]), sys.argv[2]
ledger, head = Ledger(folder / "ledger.jsonl"), HeadFile(folder / "head.json")
for n in range(60):
    ledger.append(Revoked(device=f"{name}-{n}", at=float(n)))
    ledger.compact(0.0)
    if name == "a":
        head.change(epoch=n)
    else:
        head.change(audit_seq=n)
"""


def test_what_processes_write_at_once_is_all_there(tmp_path: Path) -> None:
    HeadFile(tmp_path / "head.json").write(Head(incarnation="one"))
    writers = [
        subprocess.Popen([sys.executable, "-c", WRITER, str(tmp_path), name]) for name in "ab"
    ]
    assert [writer.wait(120) for writer in writers] == [0, 0]
    found = Ledger(tmp_path / "ledger.jsonl").entries()
    assert {entry.device for entry in found if isinstance(entry, Revoked)} == {
        f"{name}-{n}" for name in "ab" for n in range(60)
    }
    # Each changed a part of it, and undid nothing of the other's.
    assert HeadFile(tmp_path / "head.json").read() == Head(
        incarnation="one", epoch=59, audit_seq=59
    )
