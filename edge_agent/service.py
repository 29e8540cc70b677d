"""The agent as a service: `python -m edge_agent.service --config agent.toml`.

What `edgeml agent run` does, without the command line's libraries in a process that stays for
years; the systemd unit starts this.
"""

import argparse
import logging
import os
import signal
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from edgeml.errors import DeviceError, EdgemlError, exit_code_of

if TYPE_CHECKING:
    from edge_agent.api.options import ApiOptions


def serve(config: Path, api: "ApiOptions | None" = None) -> None:
    """Run the agent until SIGINT or SIGTERM.

    Raises:
        EdgemlError: it cannot start, or something is broken that only another process can mend.
    """
    from edge_agent.agent import Agent
    from edge_agent.trust.identity import load_config, load_identity
    from edge_agent.wiping import is_begun, wipe

    data = Path(load_config(config).data_dir) if config.exists() else config.parent
    if is_begun(data):
        wipe(data)
        raise _wiped(data)
    _enrolled(config)
    data = Path(load_config(config).data_dir) if config.exists() else data
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(message)s")
    logging.getLogger("httpx").setLevel(logging.WARNING)
    # A pipe, since a handler may run anywhere, also inside the locks of an Event.
    asked, ask = os.pipe()
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: os.write(ask, b"!"))
    try:
        Agent(load_identity(config), api).run(lambda: _wait(asked))
    finally:
        if is_begun(data):
            wipe(data)
            raise _wiped(data)


def _enrolled(config: Path) -> None:
    """On a first boot, enrol with the bootstrap file, if there is one."""
    from edge_agent.trust import first_boot

    file = first_boot.find(config.parent)
    if file is not None and config.exists():
        first_boot.forget(file)  # a crash came between the enrolment and this
    elif file is not None:
        first_boot.enroll_from_file(config, file)


def _wiped(data: Path) -> DeviceError:
    return DeviceError(
        "This device was decommissioned and is wiped.",
        why="The fleet's operator had it do so.",
        fix=f"To use it again, remove {data} and enrol it: edgeml agent enroll --help",
    )


def _wait(asked: int) -> None:
    os.read(asked, 1)


def main(arguments: Sequence[str] | None = None) -> int:
    """Parse the few options of the service and run it; returns the exit code."""
    parser = argparse.ArgumentParser(
        prog="python -m edge_agent.service", description="Run the agent as a service."
    )
    parser.add_argument("--config", type=Path, required=True, help="the agent.toml")
    parser.add_argument("--api", default="", help="the local API's address")
    parser.add_argument("--api-token", default="", help="a file with the token it asks for")
    parser.add_argument("--api-certificate", default="", help="its certificate, PEM")
    parser.add_argument("--api-key", default="", help="the certificate's key, PEM")
    given = parser.parse_args(arguments)
    try:
        serve(
            given.config, options(given.api, given.api_token, given.api_certificate, given.api_key)
        )
    except EdgemlError as error:
        print(f"error: {error}", file=sys.stderr)  # noqa: T201 -- a service's only voice
        return exit_code_of(error)
    return 0


def options(listen: str, token: str, certificate: str, key: str) -> "ApiOptions | None":
    """The local API's options; None where no address was given."""
    if not listen:
        return None
    from edge_agent.api.options import ApiOptions

    return ApiOptions(listen=listen, token_file=token, certificate=certificate, key=key)


if __name__ == "__main__":
    sys.exit(main())
