"""The daemon is light: what it imports before it has something to run."""

import subprocess
import sys

HEAVY = ("numpy", "cv2", "onnxruntime", "httpx", "paho", "cryptography", "sqlite3", "typer", "rich")


def test_importing_the_daemon_imports_nothing_heavy() -> None:
    code = f"import sys, edge_agent.agent; print([m for m in {HEAVY} if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_reading_its_identity_brings_no_client_of_the_network() -> None:
    modules = "edge_agent.agent, edge_agent.trust.identity, edge_agent.trust.director"
    code = f"import sys, {modules}; print([m for m in ('httpx', 'paho') if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
