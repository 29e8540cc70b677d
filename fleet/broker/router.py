"""The broker's memory and its rules, without sockets: sessions, subscriptions, retained messages.

Connections ask it; it says what to answer and whose sessions have something to send.
"""

import time
from collections.abc import Callable, Iterator, Sequence
from typing import Final

import msgspec

from fleet.broker.access import may_use
from fleet.broker.credentials import SUPERUSER
from fleet.broker.packets import Connect, Message, PacketError, Reason, Subscription
from fleet.broker.sessions import DEVICE_BOUNDS, FLEET_BOUNDS, Session
from fleet.broker.topics import (
    SHARE,
    TopicTree,
    matches,
    shared_group,
    valid_filter,
    valid_topic,
)

MAX_EXPIRY_S: Final = 7 * 86400
RETAINED_MESSAGES: Final = 16
RETAINED_BYTES: Final = 256 << 10
"""What one device may have retained; the fleet itself is not bounded."""


class Answer(msgspec.Struct, frozen=True, kw_only=True):
    """What became of a published message: the reason code, and the sessions it woke."""

    reason: Reason
    woken: tuple[Session, ...] = ()


class Router:
    """All sessions of one broker; messages expire by its `clock`, in seconds."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._sessions: dict[tuple[str, str], Session] = {}
        self._absent: dict[Session, float] = {}
        self._tree: TopicTree[tuple[Session, str]] = TopicTree()
        self._retained: dict[str, tuple[str, Message]] = {}
        self._retained_of: dict[str, list[int]] = {}
        self._turn = 0

    def session(self, username: str, client_id: str) -> Session | None:
        """Return the session of this name, if there is one."""
        return self._sessions.get((username, client_id))

    def attach(self, connect: Connect, client_id: str) -> tuple[Session, bool]:
        """Return the session for a connection, and whether it was there before."""
        key = (connect.username, client_id)
        old = self._sessions.get(key)
        if old is not None and connect.clean_start:
            self.forget(old)
            old = None
        bounds = FLEET_BOUNDS if connect.username == SUPERUSER else DEVICE_BOUNDS
        session = old or Session(*key, bounds, self._clock)
        self._sessions[key] = session
        self._absent.pop(session, None)
        session.expiry_s = min(connect.expiry_s, MAX_EXPIRY_S)
        return session, old is not None

    def detach(self, session: Session, now: float) -> None:
        """Note that a session has no connection; without an expiry it ends here."""
        if session.expiry_s == 0:
            self.forget(session)
        else:
            self._absent[session] = now + session.expiry_s

    def expire(self, now: float) -> None:
        """End the sessions whose time is over."""
        for session in [session for session, end in self._absent.items() if end <= now]:
            self.forget(session)

    def forget(self, session: Session) -> None:
        """End a session."""
        for topic_filter in session.subscriptions:
            self._tree.remove(shared_group(topic_filter)[1], (session, topic_filter))
        session.subscriptions.clear()
        self._absent.pop(session, None)
        self._sessions.pop((session.username, session.client_id), None)

    def of(self, username: str) -> list[Session]:
        """Return every session of an account."""
        return [session for session in self._sessions.values() if session.username == username]

    def publish(self, session: Session, message: Message) -> Answer:
        """Route a message of a client.

        Raises:
            PacketError: its topic is none.
        """
        if not valid_topic(message.topic):
            raise PacketError(Reason.TOPIC_INVALID, "a topic is empty, too long or has wildcards")
        if not may_use(session.username, message.topic):
            return Answer(reason=Reason.NOT_AUTHORIZED)
        if message.expiry_s is not None:
            ends_at = self._clock() + message.expiry_s
            message = msgspec.structs.replace(message, ends_at=ends_at)
        if message.retain and not self._retain(session.username, message):
            return Answer(reason=Reason.QUOTA_EXCEEDED)
        receivers: dict[Session, list[Subscription]] = {}
        for receiver, topic_filter in self._chosen(message.topic):
            subscription = receiver.subscriptions[topic_filter]
            if not (subscription.no_local and receiver is session):
                receivers.setdefault(receiver, []).append(subscription)
        for receiver, matching in receivers.items():
            receiver.offer(_as_subscribed(message, matching))
        return Answer(reason=Reason.SUCCESS, woken=tuple(receivers))

    def subscribe(self, session: Session, wanted: Sequence[Subscription]) -> list[Reason]:
        """Subscribe a session and queue the retained messages; returns the codes of SUBACK."""
        return [self._subscribe(session, subscription) for subscription in wanted]

    def unsubscribe(self, session: Session, filters: Sequence[str]) -> list[Reason]:
        """End subscriptions; returns the codes of UNSUBACK."""
        reasons = []
        for topic_filter in filters:
            known = session.subscriptions.pop(topic_filter, None)
            self._tree.remove(shared_group(topic_filter)[1], (session, topic_filter))
            reasons.append(Reason.SUCCESS if known else Reason.NO_SUBSCRIPTION_EXISTED)
        return reasons

    def _subscribe(self, session: Session, wanted: Subscription) -> Reason:
        topic_filter = wanted.topic_filter
        group, unshared = shared_group(topic_filter)
        if not valid_filter(unshared) or (group and set("+#") & set(group)):
            return Reason.FILTER_INVALID
        if group and wanted.no_local:
            raise PacketError(Reason.PROTOCOL_ERROR, "a shared subscription with No Local")
        if not may_use(session.username, unshared):
            return Reason.NOT_AUTHORIZED
        known = topic_filter in session.subscriptions
        if not known and len(session.subscriptions) >= session.bounds.subscriptions:
            return Reason.QUOTA_EXCEEDED
        session.subscriptions[topic_filter] = wanted
        self._tree.add(unshared, (session, topic_filter))
        if group:
            return Reason.GRANTED_QOS_1 if wanted.qos else Reason.SUCCESS
        if wanted.retain_handling == 0 or (wanted.retain_handling == 1 and not known):
            for message in self._retained_for(topic_filter):
                session.offer(
                    msgspec.structs.replace(message, qos=min(message.qos, wanted.qos), retain=True)
                )
        return Reason.GRANTED_QOS_1 if wanted.qos else Reason.SUCCESS

    def _chosen(self, topic: str) -> Iterator[tuple[Session, str]]:
        """Those that a message is for: of each shared subscription one, in turns (4.8.2).

        Who is connected comes before who is away, among these who has the least to do.
        """
        shared: dict[str, list[Session]] = {}
        for receiver, topic_filter in self._tree.find(topic):
            if topic_filter.startswith(SHARE):
                shared.setdefault(topic_filter, []).append(receiver)
            else:
                yield receiver, topic_filter
        for topic_filter, members in shared.items():
            self._turn += 1
            at = self._turn % len(members)
            in_turn = members[at:] + members[:at]
            yield min(in_turn, key=lambda one: (one in self._absent, one.waiting)), topic_filter

    def _retained_for(self, topic_filter: str) -> Iterator[Message]:
        if not set("+#") & set(topic_filter):
            if topic_filter in self._retained:
                yield self._retained[topic_filter][1]
            return
        for topic, (_, message) in self._retained.items():
            if matches(topic_filter, topic):
                yield message

    def _retain(self, username: str, message: Message) -> bool:
        """Keep a message as its topic's last; returns whether the publisher's share allows it."""
        count, size = self._retained_of.get(username, [0, 0])
        owner, old = self._retained.get(message.topic, ("", None))
        if old is not None and owner == username:
            count, size = count - 1, size - old.size
        if message.payload:
            count, size = count + 1, size + message.size
            full = count > RETAINED_MESSAGES or size > RETAINED_BYTES
            if full and username != SUPERUSER:
                return False
        if old is not None and owner != username:
            theirs = self._retained_of[owner]
            theirs[0], theirs[1] = theirs[0] - 1, theirs[1] - old.size
        if message.payload:
            self._retained[message.topic] = (username, message)
        else:
            self._retained.pop(message.topic, None)
        self._retained_of[username] = [count, size]
        return True


def _as_subscribed(message: Message, matching: Sequence[Subscription]) -> Message:
    """Return the one copy that a receiver gets, by the most that its subscriptions allow."""
    qos = min(message.qos, max(subscription.qos for subscription in matching))
    retain = message.retain and any(each.retain_as_published for each in matching)
    if (qos, retain) == (message.qos, message.retain):
        return message
    return msgspec.structs.replace(message, qos=qos, retain=retain)
