"""TLS on a device whose clock may be years wrong: certificates' dates, judged by a proven time.

OpenSSL judges by the wall clock. Here its own check of dates is switched off and made after the
handshake, over the whole chain that it verified, by the time that the caller gives; names and
signatures are OpenSSL's as ever.
"""

import datetime as dt
import ssl
from collections.abc import Callable

from cryptography import x509

_NO_CHECK_TIME = 0x200000  # X509_V_FLAG_NO_CHECK_TIME of OpenSSL
_NOT_YET, _EXPIRED = 9, 10  # X509_V_ERR_CERT_NOT_YET_VALID, X509_V_ERR_CERT_HAS_EXPIRED

Now = Callable[[], float | None]


def judge_dates_by(context: ssl.SSLContext, now: Now) -> ssl.SSLContext:
    """Have a context judge certificates' dates by a clock; returns the context.

    Args:
        context: a client's; its `sslsocket_class` is kept as the base of the new one.
        now: the time in Unix seconds; None where dates are not judged, because this device knows
            no time and is about to ask for it.
    """
    base: type[ssl.SSLSocket] = context.sslsocket_class or ssl.SSLSocket

    class _Dated(base):  # type: ignore[valid-type, misc]
        def do_handshake(self, block: bool = False) -> None:
            super().do_handshake(block)
            try:
                check_dates(_chain(self), now())
            except ssl.SSLCertVerificationError:
                self.close()
                raise

    context.verify_flags |= ssl.VerifyFlags(_NO_CHECK_TIME)
    context.sslsocket_class = _Dated
    return context


def check_dates(chain: list[bytes], now: float | None) -> None:
    """Check that every certificate of a chain (DER) is good at a time; None checks nothing.

    Raises:
        SSLCertVerificationError: one is not, with OpenSSL's own code for that.
    """
    if now is None:
        return
    at = dt.datetime.fromtimestamp(now, dt.UTC)
    for der in chain:
        found = x509.load_der_x509_certificate(der)
        if at < found.not_valid_before_utc:
            raise _refusal(_NOT_YET, f"it is good from {found.not_valid_before_utc}", at)
        if at > found.not_valid_after_utc:
            raise _refusal(_EXPIRED, f"it was good until {found.not_valid_after_utc}", at)


def _refusal(code: int, what: str, at: dt.datetime) -> ssl.SSLCertVerificationError:
    message = f"{what}, and the proven time is {at:%Y-%m-%d %H:%M:%S%z}"
    error = ssl.SSLCertVerificationError(1, f"certificate verify failed: {message}")
    error.verify_code, error.verify_message = code, message
    return error


def _chain(connection: ssl.SSLSocket) -> list[bytes]:
    # Public from Python 3.13 on; the object below has had it since 3.10.
    if hasattr(connection, "get_verified_chain"):
        return list(connection.get_verified_chain())
    verified = connection._sslobj.get_verified_chain()  # type: ignore[attr-defined] # noqa: SLF001
    der: int = ssl._ssl.ENCODING_DER  # type: ignore[attr-defined] # noqa: SLF001
    return [certificate.public_bytes(der) for certificate in verified]
