"""Configurations for brokers that others make: Mosquitto and EMQX, with the same rules as ours.

Everybody proves who they are with a certificate of the fleet's authority; the name in it is the
account, and the session's name, whatever name the client gives; a device uses topics below
`edgeml/v1/{its name}/` and no others, the fleet's own account all of them. Pure: text in, text out.
"""

import msgspec

from cloud_sync.messages import TOPIC_ROOT
from cloud_sync.mqtt_session import MAX_PACKET_BYTES, SESSION_EXPIRY_S
from fleet.broker.credentials import SUPERUSER
from fleet.broker.packets import MAX_PACKET
from fleet.broker.sessions import DEVICE_BOUNDS

LARGEST = max(MAX_PACKET, MAX_PACKET_BYTES)
_DAY = 86400


class Place(msgspec.Struct, frozen=True, kw_only=True):
    """Where a broker listens and where its files are, as it sees them.

    `authorities` vouch for its clients (PEM, one or more), `revoked` lists those that are not
    let in any more (PEM CRL). `websockets` is the port of a second listener, 0 for none. `user`
    is who Mosquitto runs as, `state` the folder in which it keeps sessions. `members` is the port
    of a listener for the fleet's own processes, 0 for none.
    """

    folder: str
    authorities: str
    revoked: str
    address: str = "0.0.0.0"  # noqa: S104 -- devices are elsewhere, and TLS is all it speaks
    port: int = 8883
    websockets: int = 0
    user: str = "mosquitto"
    state: str = "/var/lib/mosquitto"
    members: int = 0

    def file(self, name: str) -> str:
        """A file of the configuration."""
        return f"{self.folder}/{name}"


def mosquitto(place: Place) -> dict[str, str]:
    """The files of a Mosquitto 2: its configuration and who may use which topic."""
    listeners = [_mosquitto_listener(place, place.port, "mqtt")]
    if place.websockets:
        listeners.append(_mosquitto_listener(place, place.websockets, "websockets"))
    if place.members:
        listeners.append(_mosquitto_members(place))
    head = f"""\
# Mosquitto for an edgeml fleet. Written by `edgeml fleet broker-config mosquitto`.
user {place.user}
per_listener_settings false
allow_anonymous false
acl_file {place.file("acl")}

# An envelope is a message in base64; what is larger is no message of ours.
max_packet_size {LARGEST}
# Each client says itself how many it takes at once: a device 100, the fleet 2000.
max_inflight_messages 2000
# Per client: as much as the embedded broker keeps. What is lost here, outbox and HTTPS bring.
max_queued_messages {DEVICE_BOUNDS.messages}
max_queued_bytes {DEVICE_BOUNDS.bytes}
persistent_client_expiration {SESSION_EXPIRY_S // _DAY}d
persistence true
persistence_location {place.state}/
"""
    return {
        "mosquitto.conf": "\n".join([head, *listeners]),
        "acl": f"""\
# The fleet uses every topic, a device those below its own name.
user {SUPERUSER}
topic readwrite #

pattern readwrite {TOPIC_ROOT}/%u/#
""",
    }


def _mosquitto_listener(place: Place, port: int, protocol: str) -> str:
    return f"""\
listener {port} {place.address}
protocol {protocol}
cafile {place.authorities}
crlfile {place.revoked}
certfile {place.file("broker.pem")}
keyfile {place.file("broker.key")}
tls_version tlsv1.2
require_certificate true
# The certificate's name is the account, and the session's name, too: a client that gives
# another's gets its own.
use_identity_as_username true
use_username_as_clientid true
"""


def _mosquitto_members(place: Place) -> str:
    """Where several processes of the fleet have one account, and each a session's name of its own.

    An authority that has issued their certificate, and will issue no other, lets nobody else in.
    """
    return f"""\
listener {place.members} {place.address}
protocol mqtt
cafile {place.file("members.pem")}
certfile {place.file("broker.pem")}
keyfile {place.file("broker.key")}
tls_version tlsv1.2
require_certificate true
use_identity_as_username true
"""


def emqx(place: Place) -> dict[str, str]:
    """The files of an EMQX 5: what to add to its emqx.conf, and who may use which topic."""
    tls = f"""\
    cacertfile = "{place.authorities}"
    certfile = "{place.file("broker.pem")}"
    keyfile = "{place.file("broker.key")}"
    versions = ["tlsv1.3", "tlsv1.2"]
    verify = verify_peer
    fail_if_no_peer_cert = true"""
    web = (
        f"""
listeners.wss.default {{
  enable = true
  bind = "{place.address}:{place.websockets}"
  websocket.mqtt_path = "/mqtt"
  ssl_options {{
{tls}
  }}
}}
"""
        if place.websockets
        else "\nlisteners.wss.default.enable = false\n"
    )
    return {
        "emqx.conf": f"""\
# EMQX 5 for an edgeml fleet. Written by `edgeml fleet broker-config emqx`; add it to emqx.conf.
# EMQX checks no CRL file: it fetches lists from the address in a certificate. A revoked device
# connects until its certificate ends, to the topics of its own name alone; the fleet refuses what
# it publishes. To keep it out, ban its client id in EMQX, or use Mosquitto, which reads the list.
listeners.tcp.default.enable = false
listeners.ws.default.enable = false
listeners.ssl.default {{
  enable = true
  bind = "{place.address}:{place.port}"
  ssl_options {{
{tls}
  }}
}}
{web}
mqtt {{
  peer_cert_as_username = cn
  peer_cert_as_clientid = cn
  max_packet_size = {LARGEST}B
  max_inflight = 100
  max_mqueue_len = {DEVICE_BOUNDS.messages}
  session_expiry_interval = {SESSION_EXPIRY_S // _DAY}d
}}

authorization {{
  no_match = deny
  deny_action = ignore
  sources = [
    {{ type = file, enable = true, path = "{place.file("acl.conf")}" }}
  ]
}}
""",
        "acl.conf": f"""\
%% The fleet uses every topic, a device those below its own name.
{{allow, {{username, "{SUPERUSER}"}}, all, ["#"]}}.
{{allow, all, all, ["{TOPIC_ROOT}/${{username}}/#"]}}.
{{deny, all}}.
""",
    }
