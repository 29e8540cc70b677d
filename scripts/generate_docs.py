"""Writes the generated pages of the docs: commands, messages, targets, OpenAPI and AsyncAPI.

`python scripts/generate_docs.py` rewrites them; with `--check` it fails if they are stale.
"""

import datetime as dt
import json
import os
import re
import sys
import tempfile
import time
from pathlib import Path

DOCS = Path(__file__).resolve().parents[1] / "docs"


def names() -> list[str]:
    """Every command as it is typed: `convert`, `fleet up`, in the order of `edgeml --help`."""
    from typer import Typer
    from typer.main import get_command_name

    from edgeml.cli import app

    def walk(group: Typer, prefix: str) -> list[str]:
        found = []
        for command in group.registered_commands:
            assert command.callback is not None
            found.append(prefix + (command.name or get_command_name(command.callback.__name__)))
        for inner in group.registered_groups:
            assert inner.typer_instance is not None
            found += walk(inner.typer_instance, f"{prefix}{inner.name} ")
        return found

    return walk(app, "")


def commands() -> str:
    """The page of all commands, from their own `--help`."""
    os.environ.update(COLUMNS="88", TERM="dumb", NO_COLOR="1")
    from typer.testing import CliRunner

    from edgeml.cli import app

    parts = ["# Commands\n", "Written by `make docs` from each command's own `--help`.\n"]
    for command in names():
        shown = CliRunner().invoke(app, [*command.split(), "--help"], prog_name="edgeml").output
        text = re.sub(rf"{re.escape(str(Path.home()))}", "~", shown).rstrip()
        parts.append(f"## edgeml {command}\n\n```\n{text.strip()}\n```\n")
    return "\n".join(parts)


def openapi() -> str:
    """The OpenAPI document of the fleet's REST API."""
    from fleet.access import Access
    from fleet.db import Database
    from fleet.incarnation import HeadFile
    from fleet.keys import load_or_create
    from fleet.operator_app import operator_app
    from fleet.registry import Registry
    from fleet.services.context import Services
    from fleet.trust import Repository

    with tempfile.TemporaryDirectory() as name:
        data = Path(name)
        services = Services(
            database=Database("sqlite://"),
            keys=load_or_create(data, dt.datetime.now(dt.UTC)),
            registry=Registry(data / "registry"),
            head=HeadFile(data / "keys" / "head.json"),
            trust=Repository(data / "trust", time.time),
        )
        document = operator_app(services, Access(services)).openapi()
        services.database.close()
    return json.dumps(document, indent=1, sort_keys=True) + "\n"


def policy_schema() -> str:
    """The JSON Schema of a rollout's policy."""
    from fleet.rollouts.policy import schema

    return json.dumps(schema(), indent=1, sort_keys=True) + "\n"


def every_page() -> dict[Path, str]:
    """Every generated page, by where it belongs."""
    sys.path.insert(0, str(Path(__file__).parent))
    import message_docs

    from converters.backends.pages import pages as target_pages

    return {
        DOCS / "commands.md": commands(),
        DOCS / "openapi.json": openapi(),
        DOCS / "policy.schema.json": policy_schema(),
        DOCS / "asyncapi.json": message_docs.asyncapi(),
        **{DOCS / "messages" / name: text for name, text in message_docs.pages().items()},
        **{DOCS / "targets" / name: text for name, text in target_pages().items()},
    }


def _written() -> list[Path]:
    """Pages in folders that hold nothing else."""
    return [*(DOCS / "messages").glob("*.md"), *(DOCS / "targets").glob("*.md")]


def main() -> int:
    """Write or check the pages; returns the exit status."""
    pages = every_page()
    stale = [p.name for p, text in pages.items() if not p.exists() or p.read_text() != text]
    stale += [path.name for path in _written() if path not in pages]
    if "--check" in sys.argv:
        print(f"stale: {', '.join(stale)}; run make docs" if stale else "the docs are fresh")
        return int(bool(stale))
    for path, text in pages.items():
        path.parent.mkdir(exist_ok=True)
        path.write_text(text)
    for path in _written():
        if path not in pages:
            path.unlink()
    print(f"written: {', '.join(path.name for path in pages)}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
