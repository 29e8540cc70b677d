"""The commands `edgeml fleet`, `releases`, `rollout`, `devices` and `trust`.

All but `fleet up`, `trust make-key` and `trust sign` speak to a running fleet over its REST API.
Results go to standard output, remarks to standard error; `--json` prints the API's own objects.
"""

from fleet.commands.devices import devices_app
from fleet.commands.fleet import fleet_app
from fleet.commands.releases import releases_app
from fleet.commands.rollout import rollout_app
from fleet.commands.trust import trust_app

__all__ = ["devices_app", "fleet_app", "releases_app", "rollout_app", "trust_app"]
