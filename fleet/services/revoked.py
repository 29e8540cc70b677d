"""The list of revoked certificates that brokers read, one for each authority that is good."""

import datetime as dt

from cryptography import x509
from sqlalchemy import delete, select

from cloud_sync.release import write_atomically
from cloud_sync.trust.identity import make_crl
from fleet.db import tables
from fleet.keys import REVOKED
from fleet.ring import Held
from fleet.services.context import Services
from fleet.shared_lock import SharedLock


def write(services: Services) -> None:
    """Write the list of revoked certificates that brokers read: `keys/crl.pem`.

    One for each authority that is good; what has expired is left out, it is refused anyway.
    """
    table, now = tables.RevokedCertificate, services.now()
    path = services.keys.folder / REVOKED
    with SharedLock(path.with_suffix(".lock")):  # else an older reading could be written last
        with services.database.write() as session:
            session.execute(delete(table).where(table.expires_at < now))
            rows = list(session.scalars(select(table).order_by(table.serial)))
        cas = services.keys.cas
        lists = [_list(held, rows, now) for held in (cas.retired_key, cas.current) if held]
        write_atomically(path, "".join(lists).encode(), 0o644)
    services.revoked()


def _list(held: Held, rows: list[tables.RevokedCertificate], now: float) -> str:
    issuer = x509.load_pem_x509_certificate(held.public.encode()).subject.rfc4514_string()
    of_it = [(int(row.serial, 16), row.revoked_at) for row in rows if row.issuer == issuer]
    return make_crl(held.public, held.key, of_it, dt.datetime.fromtimestamp(now, dt.UTC))
