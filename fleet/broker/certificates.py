"""The certificates of a broker that serves the fleet's devices, from the fleet's own authority."""

import datetime as dt
import ipaddress
from collections.abc import Sequence

from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509.oid import ExtendedKeyUsageOID

from cloud_sync.trust import PrivateKey, PublicKey
from edgeml.errors import UserError

DAYS = 825  # the longest that clients of the web's kind take


def issue_server(
    hosts: Sequence[str], key: PublicKey, ca: str, ca_key: PrivateKey, now: dt.datetime
) -> str:
    """A broker's certificate, PEM.

    Args:
        hosts: the names and addresses by which clients reach it.
        key: the broker's public key.
        ca: the authority, PEM.
        ca_key: its key.
        now: when it begins.

    Raises:
        UserError: a host is no name.
    """
    issuer = x509.load_pem_x509_certificate(ca.encode())
    certificate = (
        x509.CertificateBuilder()
        .subject_name(x509.Name([]))
        .issuer_name(issuer.subject)
        .public_key(key)
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - dt.timedelta(hours=1))
        .not_valid_after(min(now + dt.timedelta(days=DAYS), issuer.not_valid_after_utc))
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(x509.SubjectAlternativeName([_name(host) for host in hosts]), critical=True)
        .add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH]), critical=False)
        .add_extension(
            x509.AuthorityKeyIdentifier.from_issuer_public_key(ca_key.public_key()), critical=False
        )
        .sign(ca_key, None)
    )
    return certificate.public_bytes(Encoding.PEM).decode()


def _name(host: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ipaddress.ip_address(host))
    except ValueError:
        pass
    try:
        if not host or not all(host.strip(".").split(".")) or "/" in host or " " in host:
            raise ValueError
        return x509.DNSName(host)
    except ValueError:
        raise UserError(
            f"{host[:100]!r} is no host's name.", fix="Write --host broker.example."
        ) from None
