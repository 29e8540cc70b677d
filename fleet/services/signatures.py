"""Who signed a release, and what is missing where nobody did."""

from tuf.api.metadata import Root, Targets
from typing_extensions import TypedDict

from fleet.services import releases, trust
from fleet.services.context import Services
from fleet.trust import changes
from fleet.trust.differences import key_name


class SignatureInfo(TypedDict):
    """How a release stands with TUF: `state` is as in `ReleaseInfo.trust`.

    `role` is the one whose signatures count, `signed` who of its keys has signed the version of it
    that names the release, `may_sign` who has not; `threshold` is how many it takes.
    """

    state: str
    role: str
    version: int
    expires_at: float | None
    threshold: int
    signed: list[str]
    may_sign: list[str]


def show(services: Services, model: str, version: str) -> SignatureInfo:
    """Who signed a release; nobody where releases are not signed at all.

    Raises:
        NotFound: there is no such release.
    """
    with services.database.read() as session:
        releases.require(session, model, version)
    repository = services.trust
    state = trust.standing(services)(model, version)
    nobody: SignatureInfo = {
        "state": state,
        "role": "",
        "version": 0,
        "expires_at": None,
        "threshold": 0,
        "signed": [],
        "may_sign": [],
    }
    if repository.latest(Root.type) is None:
        return nobody
    role = changes.responsible(repository, f"{model}/{version}")
    metadata = repository.published(role) if state == "signed" else repository.staged(role)
    delegator = repository.latest(Root.type if role == Targets.type else Targets.type)
    if metadata is None or delegator is None:
        return {**nobody, "role": role}
    result = delegator.signed.get_verification_result(
        role, metadata.signed_bytes, metadata.signatures
    )
    return {
        "state": state,
        "role": role,
        "version": metadata.signed.version,
        "expires_at": metadata.signed.expires.timestamp(),
        "threshold": result.threshold,
        "signed": sorted(key_name(key) for key in result.signed.values()),
        "may_sign": sorted(key_name(key) for key in result.unsigned.values()),
    }
