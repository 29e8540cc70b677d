"""Where the local API listens, and who may come in: checked before anything starts.

Two rules: what others can reach speaks TLS and asks for a token; and nothing is open by default.
"""

import stat
from pathlib import Path
from urllib.parse import urlsplit

import msgspec

from edgeml.errors import TrustError, UserError

UNIX = "unix:"
MIN_TOKEN = 16
MAX_TOKEN_BYTES = 4096


class ApiOptions(msgspec.Struct, frozen=True, kw_only=True):
    """As the command line gives them; `listen` is `HOST:PORT` or `unix:/path`."""

    listen: str
    token_file: str = ""
    certificate: str = ""
    key: str = ""


class Address(msgspec.Struct, frozen=True, kw_only=True):
    """Where to listen: a path, or a host and a port."""

    path: str = ""
    host: str = ""
    port: int = 0

    def __str__(self) -> str:
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{UNIX}{self.path}" if self.path else f"{host}:{self.port}"


class Access(msgspec.Struct, frozen=True, kw_only=True):
    """What was made of the options: an address that may be opened, and the token it asks for."""

    address: Address
    token: str = ""
    certificate: str = ""
    key: str = ""


def check(options: ApiOptions) -> Access:
    """Check the options against the two rules.

    Raises:
        UserError: the address is none, or others could reach it without TLS and a token.
        TrustError: the token is missing, too short, or open to others.
    """
    from cloud_sync.address import is_loopback

    address = parse_address(options.listen)
    token = _token(Path(options.token_file)) if options.token_file else ""
    if bool(options.certificate) != bool(options.key):
        raise UserError(
            "A certificate and its key belong together.",
            why="Only one of them was given.",
            fix="Give --api-certificate and --api-key.",
        )
    if not address.path and not is_loopback(address.host) and not (token and options.certificate):
        lacks = [
            *([] if options.certificate else ["no certificate"]),
            *([] if token else ["no token"]),
        ]
        raise UserError(
            f"The local API at {address} was refused.",
            why=f"Others can reach it, and it has {' and '.join(lacks)}.",
            fix="Listen on 127.0.0.1 or unix:/path, or give --api-token, --api-certificate and "
            "--api-key.",
        )
    return Access(address=address, token=token, certificate=options.certificate, key=options.key)


def parse_address(text: str) -> Address:
    """Read `127.0.0.1:8093`, `[::1]:8093` or `unix:/run/edgeml/api.sock`.

    >>> parse_address("127.0.0.1:8093").port
    8093

    Raises:
        UserError: it is none of these.
    """
    if text.startswith(UNIX):
        path = text.removeprefix(UNIX)
        if Path(path).is_absolute() and len(path.encode()) < 108:  # noqa: PLR2004 -- sun_path's size
            return Address(path=path)
    else:
        try:
            parts = urlsplit(f"//{text}")
            port = parts.port
        except ValueError:
            parts, port = urlsplit(""), None
        if parts.hostname and port is not None and parts.netloc == text and "@" not in text:
            return Address(host=parts.hostname, port=port)
    raise UserError(
        f"{text[:200]!r} is no address to listen on.",
        fix="Write 127.0.0.1:8093, [::1]:8093 or unix:/run/edgeml-agent/api.sock.",
    )


def _token(file: Path) -> str:
    try:
        mode = file.stat().st_mode
        with file.open("rb") as stream:
            token = stream.read(MAX_TOKEN_BYTES).decode("ascii", errors="replace").strip()
    except OSError as error:
        raise TrustError(
            f"The token in {file} cannot be read.",
            why=f"{error.strerror}.",
            fix=f"Make one: (umask 077; openssl rand -hex 24 > {file})",
        ) from None
    if mode & (stat.S_IRWXG | stat.S_IRWXO):
        raise TrustError(
            f"The token in {file} was refused.",
            why="Other users can read the file.",
            fix=f"Run: chmod 600 {file}",
        )
    if len(token) < MIN_TOKEN or not token.isprintable() or " " in token:
        raise TrustError(
            f"The token in {file} was refused.",
            why=f"It has fewer than {MIN_TOKEN} characters, or others than letters and digits.",
            fix=f"Make one: (umask 077; openssl rand -hex 24 > {file})",
        )
    return token
