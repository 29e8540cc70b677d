"""The pages of every message and the AsyncAPI document, from the structs themselves."""

import inspect
import json
from typing import Any

import msgspec
from msgspec import inspect as structs

from cloud_sync import commands, messages, samples
from cloud_sync.evidence import Evidence
from cloud_sync.messages import TOPIC_ROOT, Down, Up
from cloud_sync.mqtt_session import KEEPALIVE_S, MAX_INFLIGHT, SESSION_EXPIRY_S
from cloud_sync.trust import PayloadType
from cloud_sync.trust import messages as trusted
from cloud_sync.trust.envelope import MAX_ENVELOPE_BYTES, Envelope

Kind = type[msgspec.Struct]

CHANNELS: dict[Up | Down, tuple[Kind, PayloadType | None]] = {
    Up.HELLO: (messages.Hello, PayloadType.HELLO),
    Up.STATE: (messages.Batch, PayloadType.BATCH),
    Up.TELEMETRY: (messages.Batch, PayloadType.BATCH),
    Up.EVIDENCE: (messages.Batch, PayloadType.BATCH),
    Up.SECURITY: (messages.Batch, PayloadType.BATCH),
    Up.RESULT: (messages.Batch, PayloadType.BATCH),
    Up.PRESENCE: (messages.Presence, None),
    Down.DESIRED: (messages.DesiredState, PayloadType.DESIRED),
    Down.ACK: (messages.Ack, PayloadType.ACK),
    Down.COMMAND: (commands.Command, PayloadType.COMMAND),
}
"""What is on each topic, and what kind of envelope it travels in."""

OVER_HTTPS: tuple[Kind, ...] = (
    messages.EnrollRequest,
    messages.Enrolled,
    samples.SampleOffer,
    samples.SampleHeld,
    *(
        kind
        for _, kind in inspect.getmembers(trusted, inspect.isclass)
        if issubclass(kind, msgspec.Struct) and kind.__module__ == trusted.__name__
    ),
)
IN_RECORDS: tuple[Kind, ...] = tuple(
    kind
    for kind in (
        messages.StateRecord,
        messages.Window,
        Evidence,
        messages.SecurityRecord,
        commands.CommandResult,
        getattr(messages, "LedgerRecord", None),
        messages.Gap,
    )
    if kind is not None
)


_HEAD = f"""\
# Messages

Written by `make docs` from the structs in `cloud_sync/messages.py`, `cloud_sync/evidence.py`,
`cloud_sync/samples.py` and `cloud_sync/trust/messages.py`. As an AsyncAPI 3 document:
[asyncapi.json](../asyncapi.json).

A message is JSON in UTF-8. **Unknown fields pass; an unknown `version` is refused** with a reason,
counted (`ingest.unknown-version` in `edgeml fleet health`) and said in the log; what was refused
is not asked for in a loop. A message has at most {messages.MAX_MESSAGE_BYTES:,} bytes, its envelope
{MAX_ENVELOPE_BYTES:,}; at most {MAX_INFLIGHT} are in flight in each direction.

What goes over MQTT is the payload of a DSSE envelope, signed by the device's key on its way up and
by the director's on its way down; only presence, which the broker itself publishes, is not.

| topic below `edgeml/v1/{{device}}/` | message | envelope |
|---|---|---|"""


def pages() -> dict[str, str]:
    """Every page below `docs/messages`, by its name."""
    on_topics = dict.fromkeys(kind for kind, _ in CHANNELS.values())
    kinds: list[Kind] = [*on_topics, *OVER_HTTPS, *IN_RECORDS]
    return {
        "README.md": _index(kinds),
        **{f"{kind.__name__.lower()}.md": _page(kind) for kind in kinds},
    }


def asyncapi() -> str:
    """The AsyncAPI 3 document of the topics, as JSON."""
    kinds = [*dict.fromkeys(kind for kind, _ in CHANNELS.values()), Envelope, *IN_RECORDS]
    _, schemas = msgspec.json.schema_components(kinds, ref_template="#/components/schemas/{name}")
    channels, operations, found = {}, {}, {}
    for name, (kind, payload_type) in CHANNELS.items():
        key = str(name).replace("/", "-")
        found[key] = _message(kind, payload_type)
        channels[key] = {
            "address": f"{TOPIC_ROOT}/{{device}}/{name}",
            "description": f"See messages/{kind.__name__.lower()}.md.",
            "parameters": {"device": {"description": "The device's id."}},
            "messages": {key: {"$ref": f"#/components/messages/{key}"}},
        }
        operations[key] = {
            # As the fleet sees it: it is what speaks to a broker in a document for integrators.
            "action": "receive" if isinstance(name, Up) else "send",
            "channel": {"$ref": f"#/channels/{key}"},
            "bindings": {"mqtt": {"qos": 1, "retain": name is Up.PRESENCE}},
        }
    document = {
        "asyncapi": "3.0.0",
        "info": {
            "title": "edgeml",
            "version": str(messages.MESSAGE_VERSION),
            "description": "What devices and fleet say to each other over MQTT 5. State lives in "
            "the fleet's database: every message may be lost, repeated, delayed or reordered.",
        },
        "defaultContentType": "application/json",
        "servers": {
            "broker": {
                "host": "broker.example:8883",
                "protocol": "secure-mqtt",
                "protocolVersion": "5",
                "description": "Mutual TLS; a certificate's name is the account. See broker.md.",
                "bindings": {
                    "mqtt": {
                        "cleanSession": False,
                        "keepAlive": KEEPALIVE_S,
                        "sessionExpiryInterval": SESSION_EXPIRY_S,
                        "maximumPacketSize": MAX_ENVELOPE_BYTES,
                        "bindingVersion": "0.2.0",
                    }
                },
            }
        },
        "channels": channels,
        "operations": operations,
        "components": {"messages": found, "schemas": schemas},
    }
    return json.dumps(document, indent=1, sort_keys=True) + "\n"


def _message(kind: Kind, payload_type: PayloadType | None) -> dict[str, Any]:
    made: dict[str, Any] = {
        "name": kind.__name__,
        "title": kind.__name__,
        "summary": _summary(kind),
        "contentType": "application/json",
    }
    if payload_type is None:
        return {**made, "payload": {"$ref": f"#/components/schemas/{kind.__name__}"}}
    # The payload's own schema, behind the base64 of the envelope.
    inner = {
        "type": "string",
        "contentEncoding": "base64",
        "contentMediaType": "application/json",
        "x-content-schema": {"$ref": f"#/components/schemas/{kind.__name__}"},
    }
    fixed = {"payloadType": {"const": str(payload_type)}, "payload": inner}
    return {
        **made,
        "payload": {
            "allOf": [{"$ref": "#/components/schemas/Envelope"}, {"properties": fixed}],
        },
    }


def _index(kinds: list[Kind]) -> str:
    lines = [_HEAD]
    for name, (kind, payload_type) in CHANNELS.items():
        held = f"`{payload_type}`" if payload_type else "none, retained"
        lines.append(f"| `{name}` | {_link(kind)} | {held} |")
    lines += ["", "| message | is |", "|---|---|"]
    lines += [f"| {_link(kind)} | {_summary(kind)} |" for kind in kinds]
    return "\n".join([*lines, ""])


def _page(kind: Kind) -> str:
    where = [f"`{name}`" for name, (other, _) in CHANNELS.items() if other is kind]
    if kind in IN_RECORDS:
        route = "The body of a [Record](batch.md#record), in a batch."
    elif where:
        route = f"Below `edgeml/v1/{{device}}/`: {', '.join(where)}."
    else:
        route = "Over HTTPS only."
    parts = [f"# {kind.__name__}\n", f"Written by `make docs`. {route}\n"]
    for found in _structs(kind):
        if found is not kind:
            parts.append(f"## {found.__name__}\n")
        parts += [f"{inspect.cleandoc(found.__doc__ or '')}\n", _table(found)]
    return "\n".join(parts)


def _table(kind: Kind) -> str:
    info = structs.type_info(kind)
    assert isinstance(info, structs.StructType)
    rows = [
        f"| `{field.encode_name}` | {_type(field.type)} | {_default(field)} |"
        for field in info.fields
    ]
    return "\n".join(["| field | type | default |", "|---|---|---|", *rows, ""])


def _default(field: structs.Field) -> str:
    default = field.default
    if field.default_factory is not msgspec.NODEFAULT:
        default = field.default_factory()
    if default is msgspec.NODEFAULT:
        return "needed"
    text = msgspec.json.encode(default).decode()
    return f"`{text}`" if len(text) < 40 else "see below"


_PLAIN: dict[type[structs.Type], str] = {
    structs.FloatType: "number",
    structs.BoolType: "`true` or `false`",
    structs.NoneType: "null",
    structs.RawType: "JSON, as the record's kind says",
    structs.AnyType: "anything",
}


def _type(found: structs.Type) -> str:
    match found:
        case structs.StructType(cls=cls):
            return f"[{cls.__name__}](#{cls.__name__.lower()})"
        case structs.EnumType(cls=cls):
            return _any_of([f"`{each.value}`" for each in cls])
        case structs.LiteralType(values=values):
            return _any_of([f"`{each}`" for each in values])
        case structs.Metadata(type=plain, extra_json_schema={"enum": [*values]}):
            return f"{_type(plain)}: {_any_of([f'`{each}`' for each in values])}"
        case structs.UnionType(types=types):
            return _any_of([_type(each) for each in types])
        case structs.StrType(max_length=most, min_length=least):
            return "text" + _length(least, most)
        case structs.IntType(ge=least, le=most):
            return "integer" if most is None else f"integer, {least} to {most}"
        case _:
            return _PLAIN.get(type(found)) or _many(found)


def _many(found: structs.Type) -> str:
    match found:
        case structs.DictType(value_type=value, max_length=most):
            return f"table of {_type(value)}{_length(None, most)}"
        case structs.TupleType(item_types=items):
            return "[" + ", ".join(_type(each) for each in items) + "]"
        case structs.CollectionType(item_type=item, max_length=most):
            return f"list of {_type(item)}{_length(None, most)}"
        case _:
            raise TypeError(f"{found} has no words here")


def _any_of(words: list[str]) -> str:
    return " or ".join(words)


def _length(least: int | None, most: int | None) -> str:
    if most is None:
        return ""
    return f", {least} to {most:,} long" if least else f", at most {most:,} long"


def _structs(kind: Kind) -> list[Kind]:
    """A struct and those within it, each once, in the order in which they are met."""
    found: dict[Kind, None] = {}

    def walk(one: structs.Type) -> None:
        if isinstance(one, structs.StructType):
            if one.cls in found:
                return
            found[one.cls] = None
            for field in one.fields:
                walk(field.type)
        for name in ("item_type", "key_type", "value_type", "types", "item_types"):
            below = getattr(one, name, ())
            for each in below if isinstance(below, tuple) else (below,):
                walk(each)

    walk(structs.type_info(kind))
    return list(found)


def _link(kind: Kind) -> str:
    return f"[{kind.__name__}]({kind.__name__.lower()}.md)"


def _summary(kind: Kind) -> str:
    return " ".join(inspect.cleandoc(kind.__doc__ or "").partition("\n\n")[0].split())
