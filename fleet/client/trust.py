"""Who signs releases."""

from collections.abc import Mapping, Sequence
from typing import Any, cast

from fleet.client.connection import Connection, part
from fleet.trust.changes import RoleKeys
from fleet.trust.status import TrustInfo


class TrustCalls(Connection):
    """Who signs releases."""

    def trust(self) -> TrustInfo:
        """Who signs releases, until when, and what waits for whom."""
        return cast("TrustInfo", self._get("/trust"))

    def trust_init(self, root: RoleKeys, targets: RoleKeys, reason: str = "") -> TrustInfo:
        """Make the first root."""
        body = {"root": _keys(root), "targets": _keys(targets), "reason": reason}
        return cast("TrustInfo", self._post("/trust/init", body))

    def trust_add_key(self, role: str, given: RoleKeys, reason: str = "") -> TrustInfo:
        """Let one more key sign for a role."""
        path = f"/trust/roles/{part(role)}/keys"
        return cast("TrustInfo", self._post(path, {**_keys(given), "reason": reason}))

    def trust_rotate(self, role: str, given: RoleKeys, reason: str = "") -> TrustInfo:
        """Put new keys in place of a role's keys."""
        path = f"/trust/roles/{part(role)}/keys"
        body = {**_keys(given), "reason": reason}
        return cast("TrustInfo", self._call("PUT", path, json=body))

    def trust_rotate_key(self, which: str, reason: str = "") -> TrustInfo:
        """Put a new key in place of the director's or the CA's."""
        path = f"/trust/keys/{part(which)}/rotate"
        return cast("TrustInfo", self._post(path, {"reason": reason}))

    def trust_withdraw_key(self, which: str, reason: str = "", *, force: bool = False) -> TrustInfo:
        """Have the keys before the present one be good no more."""
        path = f"/trust/keys/{part(which)}/withdraw"
        return cast("TrustInfo", self._post(path, {"reason": reason, "force": force}))

    def trust_delegate(
        self, team: str, models: Sequence[str], given: RoleKeys, reason: str = ""
    ) -> TrustInfo:
        """Let a team sign the releases of some models."""
        body = {"team": team, "models": list(models), **_keys(given), "reason": reason}
        return cast("TrustInfo", self._post("/trust/delegations", body))

    def trust_refresh(self, role: str = "", reason: str = "") -> TrustInfo:
        """Renew what will expire."""
        body = {"role": role, "reason": reason}
        return cast("TrustInfo", self._post("/trust/refresh", body))

    def trust_waiting(self) -> dict[str, str]:
        """The files that travel to whoever signs."""
        return cast("dict[str, str]", self._get("/trust/waiting"))

    def trust_discard(self, reason: str = "") -> TrustInfo:
        """Give up all that waits for signatures."""
        return cast("TrustInfo", self._post("/trust/discard", {"reason": reason}))

    def trust_signatures(
        self, role: str, signatures: Mapping[str, str], reason: str = ""
    ) -> TrustInfo:
        """Hand in signatures of what waits."""
        body = {"role": role, "signatures": dict(signatures), "reason": reason}
        return cast("TrustInfo", self._post("/trust/signatures", body))


def _keys(given: RoleKeys) -> dict[str, Any]:
    return {"keys": given.keys, "threshold": given.threshold}
