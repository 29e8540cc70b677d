"""Where a device's key is: a file, or a process of its own that never gives it out."""

import json
import socket
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

from cloud_sync.trust import PrivateKey, generate, key_id
from edge_agent.trust import key_store as stores
from edge_agent.trust.identity import enroll_device, load_identity, read_identity
from edge_agent.trust.key_store import FileKeyStore, key_store
from edgeml.errors import TrustError, UserError
from tests.sim.fleet import SimFleet


class Element:
    """A secure element: keys by slot, which sign and never come out."""

    def __init__(self) -> None:
        self.keys: dict[str, PrivateKey] = {}
        self.ours, self.theirs = socket.socketpair()
        self._thread = threading.Thread(target=self._serve, daemon=True)
        self._thread.start()

    def ask(self, what: str, slot: str, data: bytes = b"") -> bytes:
        request = {"what": what, "slot": slot, "data": data.hex()}
        self.theirs.sendall(json.dumps(request).encode() + b"\n")
        return bytes.fromhex(self.theirs.makefile("r").readline().strip())

    def close(self) -> None:
        self.theirs.shutdown(socket.SHUT_RDWR)
        self._thread.join(30)
        self.ours.close()
        self.theirs.close()

    def _serve(self) -> None:
        for line in self.ours.makefile("r"):
            asked = json.loads(line)
            slot = asked["slot"]
            if asked["what"] == "public":
                answer = self.keys.setdefault(slot, generate()).public_key().public_bytes_raw()
            elif asked["what"] == "promote":
                self.keys["device"], answer = self.keys.pop("next"), b"\0"
            else:
                answer = self.keys[slot].sign(bytes.fromhex(asked["data"]))
            self.ours.sendall(answer.hex().encode() + b"\n")


class ElementKey(PrivateKey):
    """A key in the element."""

    def __init__(self, element: Element, slot: str) -> None:
        self._element, self._slot = element, slot
        self._public = Ed25519PublicKey.from_public_bytes(element.ask("public", slot))

    def public_key(self) -> Ed25519PublicKey:
        return self._public

    def sign(self, data: bytes) -> bytes:
        return self._element.ask("sign", self._slot, bytes(data))

    def private_bytes(
        self,
        encoding: Encoding,
        format: PrivateFormat,  # noqa: A002 -- the name in the interface
        encryption_algorithm: NoEncryption,
    ) -> bytes:
        raise NotImplementedError

    def private_bytes_raw(self) -> bytes:
        raise NotImplementedError

    def __copy__(self) -> "ElementKey":
        return self

    def __deepcopy__(self, memo: object) -> "ElementKey":
        return self


class ElementStore:
    """The store that a plug-in would register."""

    def __init__(self, element: Element) -> None:
        self._element = element

    def load(self) -> PrivateKey:
        return ElementKey(self._element, "device")

    def next(self) -> PrivateKey:
        return ElementKey(self._element, "next")

    def promote(self) -> None:
        self._element.ask("promote", "next")


@pytest.fixture
def element(monkeypatch: pytest.MonkeyPatch) -> Iterator[Element]:
    made = Element()

    class Point:
        name = "element"

        @staticmethod
        def load() -> object:
            return lambda _folder, settings: ElementStore(made) if settings == "slot=1" else None

    def points(*, group: str, name: str = "element") -> list[type[Point]]:
        return [Point] if (group, name) == (stores.GROUP, "element") else []

    monkeypatch.setattr(stores, "entry_points", points)
    yield made
    made.close()


def test_a_device_whose_key_is_in_an_element_enrols_and_speaks_without_a_key_on_the_disk(
    element: Element, tmp_path: Path
) -> None:
    from cloud_sync.device_api import DeviceClient

    with SimFleet(tmp_path / "registry") as fleet:
        data = tmp_path / "cam-1"
        config = enroll_device(fleet.url, "cam-1", "cam-1.token", data, keys="element:slot=1")
        identity = load_identity(config)
        assert not list(data.rglob("*.key"))
        assert identity.config.key_store == "element:slot=1"
        client = DeviceClient(fleet.url, "cam-1", identity.key)
        client.desired()
        client.close()
    assert key_id(identity.key.public_key()) == key_id(element.keys["device"].public_key())


def test_a_crash_between_certificate_and_key_is_mended(tmp_path: Path) -> None:
    with SimFleet(tmp_path / "registry") as fleet:
        config = fleet.enroll("cam-1", tmp_path / "cam-1")
    identity = load_identity(config)
    folder = identity.folder
    (folder / "device.key").replace(folder / "next.key")  # the key of the certificate
    FileKeyStore(tmp_path).next()
    (tmp_path / "next.key").replace(folder / "device.key")  # an older one
    mended = read_identity(identity.config)
    assert key_id(mended.key.public_key()) == key_id(identity.key.public_key())
    assert not (folder / "next.key").exists()
    (folder / "device.key").unlink()
    FileKeyStore(tmp_path).next()
    (tmp_path / "next.key").replace(folder / "device.key")
    with pytest.raises(TrustError, match="not that of its certificate"):
        read_identity(identity.config)


def test_a_store_that_is_not_installed_is_named(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"no key store 'tpm'.*There are file"):
        key_store("tpm:x", tmp_path)
