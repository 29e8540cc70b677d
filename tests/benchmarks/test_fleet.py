import pytest

from benchmarks.fleet_bounds import Costs, Counts, beside_s, parts_s
from benchmarks.fleet_rollout import _counts

COSTS = Costs(
    handshake_s=1.0,
    megabyte_s=2.0,
    sign_s=0.1,
    verify_s=0.2,
    refresh_s=5.0,
    message_s=0.01,
    client_message_s=0.02,
    request_s=0.5,
)


def test_a_bound_counts_every_part_as_often_as_a_device_needs_it() -> None:
    counts = Counts(
        handshakes=2,
        megabytes=3,
        signatures=10,
        verifications=20,
        refreshes=1,
        messages=100,
        requests=6,
    )
    assert beside_s(COSTS, counts) == {"http": 6 * 0.5, "bus clients": 100 * 0.02}
    assert parts_s(COSTS, counts) == pytest.approx(
        {
            "handshakes": 2 * 1.0,
            "bytes": 3 * 2.0,
            "signatures": 10 * 0.1 + 20 * 0.2,
            "refresh": 5.0,
            "broker": 100 * 0.01,
        }
    )


def test_what_devices_did_to_connect_is_no_part_of_the_rollout() -> None:
    summary = {
        "messages_sent": 40,
        "http_connections": 30,
        "http_requests": 80,
        "downloaded_bytes": 10_000_000,
    }
    counts = _counts(summary, 10)
    assert counts.handshakes == 1
    assert counts.megabytes == 1
    # The state, four batches and their acknowledgements; and a token to verify.
    assert (counts.signatures, counts.verifications, counts.messages) == (9, 10, 9)
    assert counts.requests == 5
