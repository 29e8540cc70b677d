"""What a new version of a role changes, in sentences that whoever signs it can check.

>>> from tuf.api.metadata import TargetFile, Targets
>>> after = Targets()
>>> after.targets["digits/1.2.0"] = TargetFile(5, {"sha256": "ab" * 32}, "digits/1.2.0")
>>> differences(None, after)
['+ digits:1.2.0 is sha256:abababababababababababababababababababababababababababababababab']
"""

from collections.abc import Iterable, Mapping

from securesystemslib.signer import Key
from tuf.api.metadata import Role, Root, Signed, Targets

from fleet.trust.changes import NAME


def differences(before: Signed | None, after: Signed) -> list[str]:
    """What is added (`+`) and taken away (`-`); with nothing before, all that there is.

    Args:
        before: the version that the reader knows.
        after: the version that is to be signed.
    """
    old = _statements(before) if before is not None else []
    new = _statements(after)
    gone = [f"- {line}" for line in old if line not in new]
    come = [f"+ {line}" for line in new if line not in old]
    return [*gone, *come] or ["nothing: it is the same, for longer"]


def key_name(key: Key) -> str:
    """Whose key it is and the beginning of its id: `alice (1f2e3d4c)`."""
    name = str(key.unrecognized_fields.get(NAME, "a key"))
    return f"{name[:64]} ({key.keyid[:8]})"


def _statements(signed: Signed) -> list[str]:
    if isinstance(signed, Root):
        return [_rule(name, rule, signed.keys) for name, rule in sorted(signed.roles.items())]
    if not isinstance(signed, Targets):
        return []
    found = []
    for path, target in sorted(signed.targets.items()):
        model, _, version = path.partition("/")
        name = path if model.startswith("_") else f"{model}:{version}"
        found.append(f"{name} is sha256:{target.hashes.get('sha256', '')}")
    if signed.delegations and signed.delegations.roles:
        for name, role in sorted(signed.delegations.roles.items()):
            models = ", ".join(path.removesuffix("/*") for path in role.paths or ())
            rule = _rule(name, role, signed.delegations.keys)
            found.append(f"{rule}; it signs the releases of {models}")
    return found


def _rule(name: str, rule: Role, keys: Mapping[str, Key]) -> str:
    return f"{name} is signed by {rule.threshold} of {_names(keys[k] for k in rule.keyids)}"


def _names(keys: Iterable[Key]) -> str:
    return ", ".join(sorted(key_name(key) for key in keys))
