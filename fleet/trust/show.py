"""What `edgeml trust` prints."""

import datetime as dt

from fleet.trust.status import OwnKeyInfo, TrustInfo, WaitingInfo


def trust_text(info: TrustInfo) -> str:
    """The state of trust as text, with what to do next."""
    lines = [info["sentence"], *(f"warning: {line}" for line in info["warnings"])]
    for role in info["roles"]:
        day = dt.datetime.fromtimestamp(role["expires_at"], dt.UTC).strftime("%Y-%m-%d %H:%M")
        keys = ", ".join(f"{k['name']}{' online' * k['online']}" for k in role["keys"])
        what = f"  {role['role']} v{role['version']}, until {day} UTC"
        lines.append(f"{what}: {role['threshold']} of {keys}")
        if role["models"]:
            lines.append(f"    signs {', '.join(role['models'])}")
    lines += [_own_key(own) for own in info["own_keys"]]
    for waiting in info["waiting"]:
        lines += _waiting(waiting)
    if any(waiting["missing"] for waiting in info["waiting"]):
        lines.append("Take it to the keys: edgeml trust export FOLDER")
    return "\n".join(lines)


def _own_key(own: OwnKeyInfo) -> str:
    line = f"  {own['key']}: {own['id'][:8]} signs"
    if own["announced"]:
        line += ", until the next one is public"
    if own["retired"]:
        line += f", {own['retired']} before it still good: edgeml trust withdraw-key {own['key']}"
    return line


def _waiting(waiting: WaitingInfo) -> list[str]:
    head = f"waits: {waiting['role']} v{waiting['version']}"
    if waiting["missing"]:
        who = ", ".join(waiting["may_sign"]) or "nobody"
        head += f", {waiting['missing']} signature(s) missing; may sign: {who}"
    else:
        head += ", signed; it becomes public with what waits beside it"
    return [head, *(f"    {line}" for line in waiting["changes"])]
