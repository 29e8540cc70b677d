import socket
from pathlib import Path

import pytest

from edgeml.errors import UserError
from fleet.listeners import Listener, Tls, check_free, require_tls, take


def test_a_port_in_use_is_found_out_with_the_option_that_changes_it() -> None:
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        listener = Listener(
            "devices' listener", "127.0.0.1", other.getsockname()[1], "--device-port"
        )
        for look in (take, check_free):
            with pytest.raises(UserError) as error:
                look(listener)
            assert "Another program uses the port." in error.value.why
            assert "--device-port" in error.value.fix


@pytest.mark.parametrize(("host", "port"), [("203.0.113.9", 0), ("127.0.0.1", 99999)])
def test_an_address_that_cannot_be_taken_is_one_sentence(host: str, port: int) -> None:
    with pytest.raises(UserError, match="cannot listen"):
        take(Listener("listener", host, port, "--port"))


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "192.0.2.1", "fleet.example"])
def test_a_listener_that_others_reach_wants_tls(host: str) -> None:
    listener = Listener("listener", host, 8080, "--port")
    with pytest.raises(UserError, match="without TLS"):
        require_tls(listener, None)
    require_tls(listener, Tls(Path("cert"), Path("key")))


@pytest.mark.parametrize("host", ["127.0.0.1", "127.8.8.8", "::1", "localhost"])
def test_on_loopback_plain_is_allowed(host: str) -> None:
    require_tls(Listener("listener", host, 8080, "--port"), None)
