"""Makes a package that brings an entry point, as pip would leave it on disk."""

from pathlib import Path


def install(folder: Path, group: str, name: str, code: str) -> None:
    """Put a module with `make` and its metadata into a folder that goes on `sys.path`."""
    module = f"plugin_{name}"
    (folder / f"{module}.py").write_text(code)
    metadata = folder / f"{module}-1.0.dist-info"
    metadata.mkdir()
    (metadata / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {module}\nVersion: 1.0\n")
    (metadata / "entry_points.txt").write_text(f"[{group}]\n{name} = {module}:make\n")
