"""TLS with a broker: who must have issued its certificate, and what is said where it is refused."""

import ssl
from pathlib import Path

from edgeml.errors import TrustError

# OpenSSL's X509_V_ERR_...: not yet valid, expired; host name, address mismatch.
DATES = frozenset((9, 10))
_NAMES = frozenset((62, 64))


class _Socket(ssl.SSLSocket):
    """A socket that a failed handshake closes: paho lets go of it while it is open."""

    def do_handshake(self, block: bool = False) -> None:
        """Agree on keys, and look at the certificate."""
        try:
            super().do_handshake(block)
        except OSError:
            self.close()
            raise


def tls_context(ca: Path | None, certificate: Path | None, key: Path | None) -> ssl.SSLContext:
    """A client's context: TLS 1.2 or newer, and its own certificate where it has one.

    Raises:
        TrustError: a file cannot be read.
    """
    try:
        context = ssl.create_default_context(cafile=ca)
        context.minimum_version = ssl.TLSVersion.TLSv1_2
        context.sslsocket_class = _Socket
        if certificate:
            context.load_cert_chain(certificate, key)
    except OSError as error:
        raise TrustError(
            "The broker's certificates or this client's cannot be read.", why=f"{error}."
        ) from None
    return context


def refusal_of(
    error: ssl.SSLCertVerificationError, address: str, host: str, ca: Path | None
) -> TrustError:
    """The refusal of a broker's certificate as a sentence."""
    if error.verify_code in _NAMES:
        why = f"Its certificate is for another name than {host}."
        fix = "Use the name that the certificate has, or have one issued for this name."
    elif error.verify_code in DATES:
        why = f"Of its certificate it is said: {error.verify_message}."
        fix = "Renew the broker's certificate, and check this machine's clock."
    else:
        why = f"{ca or 'No authority that this system trusts'} does not vouch for its certificate"
        why = f"{why} ({error.verify_message})."
        fix = "Name the CA that issued it, or have that one issue the broker's certificate."
    return TrustError(f"The broker at {address} was refused.", why=why, fix=fix)
