import msgspec
import pytest

from fleet.broker.credentials import SUPERUSER
from fleet.broker.packets import Connect, Message, PacketError, Reason, Subscription
from fleet.broker.router import MAX_EXPIRY_S, RETAINED_BYTES, RETAINED_MESSAGES, Router
from fleet.broker.sessions import DEVICE_BOUNDS, Session


def connect(username: str, *, expiry_s: int = 300, clean_start: bool = False) -> Connect:
    return Connect(
        client_id=username,
        username=username,
        password="",
        clean_start=clean_start,
        keepalive_s=30,
        expiry_s=expiry_s,
        receive_maximum=100,
        maximum_packet=1 << 20,
        will=None,
    )


def wanted(topic_filter: str, qos: int = 1, **options: object) -> Subscription:
    return Subscription(
        topic_filter=topic_filter,
        qos=qos,
        no_local=bool(options.get("no_local")),
        retain_as_published=bool(options.get("retain_as_published")),
        retain_handling=int(str(options.get("retain_handling", 0))),
    )


def message(topic: str, payload: bytes = b"x", *, qos: int = 1, retain: bool = False) -> Message:
    return Message(topic=topic, payload=payload, qos=qos, retain=retain)


def joined(router: Router, username: str, *filters: str) -> Session:
    session, _ = router.attach(connect(username), username)
    assert all(code < 0x80 for code in router.subscribe(session, [wanted(f) for f in filters]))
    session.resume(100, 1 << 20)
    return session


def test_a_message_wakes_whom_it_concerns_once_though_two_filters_match() -> None:
    router = Router()
    fleet = joined(router, SUPERUSER, "edgeml/v1/+/up/#", "edgeml/#")
    joined(router, "cam-2", "edgeml/v1/cam-2/down/#")
    answer = router.publish(joined(router, "cam"), message("edgeml/v1/cam/up/state"))
    assert answer.reason is Reason.SUCCESS
    assert answer.woken == (fleet,)
    assert fleet.waiting == 1


def test_a_device_neither_publishes_nor_retains_under_another() -> None:
    router = Router()
    fleet = joined(router, SUPERUSER, "#")
    device = joined(router, "cam")
    answer = router.publish(device, message("edgeml/v1/cam-2/up/state", retain=True))
    assert answer.reason is Reason.NOT_AUTHORIZED
    assert fleet.waiting == 0
    late = joined(router, f"{SUPERUSER}", "#")
    assert late.waiting == 0


@pytest.mark.parametrize(
    ("topic_filter", "reason"),
    [
        ("#", Reason.NOT_AUTHORIZED),
        ("edgeml/v1/+/down/#", Reason.NOT_AUTHORIZED),
        ("edgeml/v1/cam/#/x", Reason.FILTER_INVALID),
        ("$share/g/edgeml/v1/cam/down/#", Reason.GRANTED_QOS_1),
        ("$share/g/edgeml/v1/+/down/#", Reason.NOT_AUTHORIZED),
        ("$share/g+/edgeml/v1/cam/down/#", Reason.FILTER_INVALID),
        ("$share//edgeml/v1/cam/down/#", Reason.FILTER_INVALID),
        ("$share/g", Reason.FILTER_INVALID),
        ("edgeml/v1/cam/down/#", Reason.GRANTED_QOS_1),
    ],
)
def test_each_filter_of_a_subscribe_gets_its_own_answer(topic_filter: str, reason: Reason) -> None:
    router = Router()
    device = joined(router, "cam")
    assert router.subscribe(device, [wanted(topic_filter)]) == [reason]


def test_a_topic_with_a_wildcard_ends_the_connection() -> None:
    router = Router()
    with pytest.raises(PacketError) as caught:
        router.publish(joined(router, "cam"), message("edgeml/v1/cam/+"))
    assert caught.value.reason is Reason.TOPIC_INVALID


def test_qos_and_retain_are_those_that_the_subscription_allows() -> None:
    router = Router()
    fleet = joined(router, SUPERUSER)
    router.subscribe(fleet, [wanted("a", qos=0), wanted("b", retain_as_published=True)])
    for topic in ("a", "b"):
        router.publish(joined(router, SUPERUSER), message(topic, retain=True))
    first, second = list(fleet.take())
    assert (first[0] & 0x07, second[0] & 0x07) == (0x00, 0x03)


def test_a_client_that_wants_none_of_its_own_gets_none() -> None:
    router = Router()
    fleet = joined(router, SUPERUSER)
    router.subscribe(fleet, [wanted("a", no_local=True)])
    assert router.publish(fleet, message("a")).woken == ()


def test_retained_messages_come_with_a_subscription_and_go_with_an_empty_payload() -> None:
    router = Router()
    device = joined(router, "cam")
    router.publish(device, message("edgeml/v1/cam/up/presence", b"online", retain=True))
    fleet = joined(router, SUPERUSER, "edgeml/v1/+/up/presence")
    assert fleet.waiting == 1
    router.subscribe(fleet, [wanted("edgeml/v1/+/up/presence", retain_handling=1)])
    router.subscribe(fleet, [wanted("edgeml/v1/cam/up/presence", retain_handling=2)])
    assert fleet.waiting == 1
    router.publish(device, message("edgeml/v1/cam/up/presence", b"", retain=True))
    router.forget(fleet)
    assert joined(router, SUPERUSER, "edgeml/#").waiting == 0


def test_what_a_device_may_retain_is_bounded_and_given_back() -> None:
    router = Router()
    device = joined(router, "cam")

    def retain(n: int, payload: bytes) -> Reason:
        return router.publish(device, message(f"edgeml/v1/cam/{n}", payload, retain=True)).reason

    assert {retain(n, b"x") for n in range(RETAINED_MESSAGES)} == {Reason.SUCCESS}
    assert retain(99, b"x") is Reason.QUOTA_EXCEEDED
    assert retain(0, b"other") is Reason.SUCCESS
    assert retain(0, b"") is Reason.SUCCESS
    assert retain(99, bytes(RETAINED_BYTES)) is Reason.QUOTA_EXCEEDED
    assert retain(99, b"x") is Reason.SUCCESS


def test_what_the_fleet_retains_instead_of_a_device_is_not_on_the_devices_account() -> None:
    router = Router()
    device, fleet = joined(router, "cam"), joined(router, SUPERUSER)
    for n in range(RETAINED_MESSAGES):
        router.publish(device, message(f"edgeml/v1/cam/{n}", retain=True))
    router.publish(fleet, message("edgeml/v1/cam/0", b"", retain=True))
    assert (
        router.publish(device, message("edgeml/v1/cam/new", retain=True)).reason is Reason.SUCCESS
    )


def test_subscriptions_of_a_device_are_bounded() -> None:
    router = Router()
    device = joined(router, "cam")
    many = [wanted(f"edgeml/v1/cam/{n}") for n in range(DEVICE_BOUNDS.subscriptions + 1)]
    assert router.subscribe(device, many)[-1] is Reason.QUOTA_EXCEEDED
    assert router.unsubscribe(device, ["edgeml/v1/cam/0", "edgeml/v1/cam/none"]) == [
        Reason.SUCCESS,
        Reason.NO_SUBSCRIPTION_EXISTED,
    ]


def test_a_session_outlives_its_connection_by_its_expiry_and_no_longer() -> None:
    router = Router()
    device = joined(router, "cam", "edgeml/v1/cam/down/#")
    router.detach(device, now=100.0)
    router.expire(now=399.0)
    assert router.publish(joined(router, SUPERUSER), message("edgeml/v1/cam/down/x")).woken
    assert router.attach(connect("cam"), "cam") == (device, True)
    router.detach(device, now=500.0)
    router.expire(now=800.0)
    assert router.session("cam", "cam") is None
    assert not router.publish(joined(router, SUPERUSER), message("edgeml/v1/cam/down/x")).woken


def test_a_clean_start_and_no_expiry_end_a_session() -> None:
    router = Router()
    first = joined(router, "cam")
    second, present = router.attach(connect("cam", clean_start=True, expiry_s=0), "cam")
    assert second is not first
    assert not present
    router.detach(second, now=0.0)
    assert router.of("cam") == []


def test_an_expiry_is_cut_to_what_the_broker_keeps() -> None:
    session, _ = Router().attach(connect("cam", expiry_s=0xFFFFFFFF), "cam")
    assert session.expiry_s == MAX_EXPIRY_S


def test_a_message_waits_no_longer_than_its_publisher_lets_it_also_a_retained_one() -> None:
    now = [0.0]
    router = Router(lambda: now[0])
    fleet, device = joined(router, SUPERUSER), joined(router, "cam", "edgeml/v1/cam/down/command")
    brief = Message(
        topic="edgeml/v1/cam/down/command", payload=b"x", qos=1, retain=True, expiry_s=60
    )
    router.publish(fleet, brief)
    now[0] = 59.0
    assert len(list(device.take())) == 1
    router.publish(fleet, brief)
    now[0] = 120.0
    device.resume(100, 1 << 20)
    router.subscribe(device, [wanted("edgeml/v1/cam/down/#")])
    assert list(device.take()) == []


def member(router: Router, name: str, *filters: str) -> Session:
    """A session of the fleet's own account, by its client's name."""
    connected = msgspec.structs.replace(connect(SUPERUSER), client_id=name)
    session, _ = router.attach(connected, name)
    assert all(code < 0x80 for code in router.subscribe(session, [wanted(f) for f in filters]))
    session.resume(100, 1 << 20)
    return session


def test_of_those_who_share_a_subscription_one_is_given_each_message() -> None:
    router = Router()
    shared = "$share/g/edgeml/v1/+/up/#"
    members = [member(router, name, shared) for name in ("a", "b", "c")]
    other_group = member(router, "d", "$share/h/edgeml/v1/+/up/#")
    alone = member(router, "e", "edgeml/#")
    device = joined(router, "cam")
    for _ in range(9):
        router.publish(device, message("edgeml/v1/cam/up/state"))
    assert [one.waiting for one in members] == [3, 3, 3]
    assert (other_group.waiting, alone.waiting) == (9, 9)


def test_who_is_away_is_given_nothing_while_another_who_shares_is_there() -> None:
    router = Router()
    away, there = (member(router, name, "$share/g/edgeml/#") for name in ("a", "b"))
    device = joined(router, "cam")
    router.detach(away, 0.0)
    for _ in range(4):
        router.publish(device, message("edgeml/v1/cam/up/state"))
    assert (away.waiting, there.waiting) == (0, 4)
    router.detach(there, 0.0)
    router.publish(device, message("edgeml/v1/cam/up/state"))
    assert away.waiting + there.waiting == 5


def test_who_has_unsubscribed_or_is_forgotten_shares_no_more_and_gets_nothing_retained() -> None:
    router = Router()
    device = joined(router, "cam")
    router.publish(device, message("edgeml/v1/cam/up/presence", retain=True))
    left, forgotten, stays = (member(router, name, "$share/g/edgeml/#") for name in "abc")
    assert stays.waiting == 0
    assert router.unsubscribe(left, ["$share/g/edgeml/#"]) == [Reason.SUCCESS]
    router.forget(forgotten)
    for _ in range(3):
        router.publish(device, message("edgeml/v1/cam/up/state"))
    assert (left.waiting, stays.waiting) == (0, 3)


def test_a_shared_subscription_may_not_leave_out_ones_own_messages() -> None:
    router = Router()
    with pytest.raises(PacketError) as caught:
        router.subscribe(joined(router, SUPERUSER), [wanted("$share/g/edgeml/#", no_local=True)])
    assert caught.value.reason is Reason.PROTOCOL_ERROR
