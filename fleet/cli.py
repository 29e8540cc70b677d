"""The commands `edgeml fleet`, `releases`, `rollout`, `devices`, `trust`, `users` and others.

All but `fleet up`, `trust make-key` and `trust sign` speak to a running fleet over its REST API.
Results go to standard output, remarks to standard error; `--json` prints the API's own objects.
"""

from fleet.commands.alerts import alerts_app
from fleet.commands.audit import audit_app
from fleet.commands.devices import devices_app
from fleet.commands.fleet import fleet_app
from fleet.commands.login import login, logout, whoami
from fleet.commands.models import models_app
from fleet.commands.releases import releases_app
from fleet.commands.rollout import rollout_app
from fleet.commands.samples import samples_app
from fleet.commands.simulate import simulate
from fleet.commands.tokens import tokens_app
from fleet.commands.top import top
from fleet.commands.trust import trust_app
from fleet.commands.users import users_app
from fleet.commands.webhooks import webhooks_app

__all__ = [
    "alerts_app",
    "audit_app",
    "devices_app",
    "fleet_app",
    "login",
    "logout",
    "models_app",
    "releases_app",
    "rollout_app",
    "samples_app",
    "simulate",
    "tokens_app",
    "top",
    "trust_app",
    "users_app",
    "webhooks_app",
    "whoami",
]
