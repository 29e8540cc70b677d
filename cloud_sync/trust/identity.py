"""Device certificates: a request made on the device, a certificate issued by the fleet's CA.

The certificate's common name is the device's id. Keys are Ed25519.
"""

import datetime as dt
import re
from collections.abc import Iterable

from cryptography import x509
from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from cloud_sync.trust.keys import PrivateKey, PublicKey, key_id, split_pems
from edgeml.errors import TrustError, UserError

CA_DAYS = 3650
DEVICE_DAYS = 365
CRL_DAYS = 3650  # a broker refuses everybody when its list has run out
_DEVICE = re.compile(r"[A-Za-z0-9](?:[A-Za-z0-9._-]{0,62}[A-Za-z0-9])?")
_BACKDATED = dt.timedelta(hours=1)
_UNREADABLE = (
    ValueError,
    TypeError,
    InvalidSignature,
    UnsupportedAlgorithm,
    x509.InvalidVersion,
)


def check_device_id(device: str) -> str:
    """Return a device's id if it can be one (it is also a topic level and a common name).

    Raises:
        UserError: it cannot.
    """
    if not _DEVICE.fullmatch(device):
        raise UserError(
            f"{device[:64]!r} cannot be a device's id.",
            fix="Use up to 64 letters, digits and . _ - between them.",
        )
    return device


def make_request(device: str, key: PrivateKey) -> str:
    """A certificate signing request for a device, PEM."""
    request = x509.CertificateSigningRequestBuilder().subject_name(_name(device)).sign(key, None)
    return request.public_bytes(Encoding.PEM).decode()


def read_request(pem: str) -> tuple[str, PublicKey]:
    """The device's id and key of a request whose signature proves that it holds the key.

    Raises:
        TrustError: the request is damaged, not self-signed or has no proper name.
    """
    try:
        request = x509.load_pem_x509_csr(pem.encode())
        valid = request.is_signature_valid
        key = request.public_key()
        device = _common_name(request.subject)
    except _UNREADABLE as error:
        raise TrustError("The certificate request cannot be read.", why=f"{error}.") from None
    if not valid or not isinstance(key, PublicKey):
        raise TrustError("The certificate request was refused.", why="It is not signed by its key.")
    return check_device_id(device), key


def make_ca(key: PrivateKey, now: dt.datetime) -> str:
    """A self-signed CA certificate, PEM; its name is its key's, so that two are never mixed up."""
    name = _name(f"edgeml fleet CA {key_id(key.public_key())[:8]}")
    certificate = (
        _builder(now, CA_DAYS)
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(_usage(ca=True), critical=True)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
        .sign(key, None)
    )
    return certificate.public_bytes(Encoding.PEM).decode()


def issue(device: str, key: PublicKey, ca: str, ca_key: PrivateKey, now: dt.datetime) -> str:
    """A device's certificate, PEM."""
    issuer = x509.load_pem_x509_certificate(ca.encode())
    certificate = (
        _builder(now, DEVICE_DAYS)
        .subject_name(_name(device))
        .issuer_name(issuer.subject)
        .public_key(key)
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(_usage(ca=False), critical=True)
        .add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.CLIENT_AUTH]), critical=False)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key), critical=False)
        .add_extension(
            x509.AuthorityKeyIdentifier.from_issuer_public_key(ca_key.public_key()), critical=False
        )
        .sign(ca_key, None)
    )
    return certificate.public_bytes(Encoding.PEM).decode()


def verify_issued(certificate: str, authorities: str) -> str:
    """The device's id of a certificate that one of these authorities (PEM) issued.

    Raises:
        TrustError: another issued it, or it cannot be read.
    """
    error: Exception | None = None
    for ca in split_pems(authorities):
        try:
            found = x509.load_pem_x509_certificate(certificate.encode())
            found.verify_directly_issued_by(x509.load_pem_x509_certificate(ca.encode()))
            return _common_name(found.subject)
        except _UNREADABLE as refused:
            error = refused
    why = f"{error or ''}".strip() or "Another authority issued it"
    raise TrustError("The certificate was refused.", why=f"{why}.")


def is_issued_by(certificate: str, ca: str) -> bool:
    """Whether this one authority issued a certificate."""
    try:
        verify_issued(certificate, ca)
    except TrustError:
        return False
    return True


def validity(certificate: str) -> tuple[float, float]:
    """From when to when a certificate (PEM) is good, in Unix seconds.

    Raises:
        TrustError: it cannot be read.
    """
    try:
        found = x509.load_pem_x509_certificate(certificate.encode())
    except _UNREADABLE as error:
        raise TrustError("A certificate cannot be read.", why=f"{error}.") from None
    return found.not_valid_before_utc.timestamp(), found.not_valid_after_utc.timestamp()


def certified_key(certificate: str) -> PublicKey:
    """The key that a device's certificate (PEM) is for.

    Raises:
        TrustError: it cannot be read, or the key is of another kind.
    """
    try:
        key = x509.load_pem_x509_certificate(certificate.encode()).public_key()
    except _UNREADABLE as error:
        raise TrustError("A certificate cannot be read.", why=f"{error}.") from None
    if not isinstance(key, PublicKey):
        raise TrustError("A certificate's key is of another kind.", why="Ed25519 is needed.")
    return key


def make_crl(
    ca: str, ca_key: PrivateKey, revoked: Iterable[tuple[int, float]], now: dt.datetime
) -> str:
    """A list of revoked certificates, PEM, for brokers that know devices by certificate.

    Args:
        ca: the authority that signs it.
        ca_key: its key.
        revoked: serial numbers, and when each was revoked, in Unix seconds.
        now: when it is made; it is good for `CRL_DAYS`.
    """
    issuer = x509.load_pem_x509_certificate(ca.encode())
    builder = (
        x509.CertificateRevocationListBuilder()
        .issuer_name(issuer.subject)
        .last_update(now - _BACKDATED)
        .next_update(now + dt.timedelta(days=CRL_DAYS))
        .add_extension(
            x509.AuthorityKeyIdentifier.from_issuer_public_key(ca_key.public_key()), critical=False
        )
        .add_extension(x509.CRLNumber(int(now.timestamp())), critical=False)
    )
    for serial, at in revoked:
        entry = (
            x509.RevokedCertificateBuilder()
            .serial_number(serial)
            .revocation_date(dt.datetime.fromtimestamp(at, dt.UTC))
            .build()
        )
        builder = builder.add_revoked_certificate(entry)
    return builder.sign(ca_key, None).public_bytes(Encoding.PEM).decode()


def _builder(now: dt.datetime, days: int) -> x509.CertificateBuilder:
    return (
        x509.CertificateBuilder()
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - _BACKDATED)
        .not_valid_after(now + dt.timedelta(days=days))
    )


def _usage(*, ca: bool) -> x509.KeyUsage:
    """Signing certificates for the authority, proving itself for a device, and nothing else."""
    return x509.KeyUsage(
        digital_signature=not ca,
        key_cert_sign=ca,
        crl_sign=ca,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        encipher_only=False,
        decipher_only=False,
    )


def _name(common: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, common)])


def _common_name(name: x509.Name) -> str:
    found = name.get_attributes_for_oid(NameOID.COMMON_NAME)
    if len(found) != 1:
        raise TrustError("A certificate has no proper name.")
    return str(found[0].value)
