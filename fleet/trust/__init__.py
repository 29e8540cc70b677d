"""The fleet's TUF repository: which releases are signed, by whom, and what waits for a signature.

`store` has the files, `repository` decides what may be published and keeps it fresh, `changes`
are the edits that operators ask for, `differences` puts them into sentences, `offline` is the
folder that travels to the keys. python-tuf has the format and the verification.
"""

from fleet.trust.repository import Repository

__all__ = ["Repository"]
