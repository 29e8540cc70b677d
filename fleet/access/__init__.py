"""Who may use the operators' listener, and for what.

`door` lets people in and finds out who they are, `needs` and `guard` hold each route to the role
and the label scope that its callers must have, `oidc` takes another's word for who they are.
"""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from fleet.access.door import Access, AccessMiddleware

__all__ = ["Access", "AccessMiddleware"]


def __getattr__(name: str) -> Any:
    """Import the door late: services use `scope` and `approval`, which it is built on."""
    if name not in __all__:
        raise AttributeError(name)
    from fleet.access import door

    return getattr(door, name)
