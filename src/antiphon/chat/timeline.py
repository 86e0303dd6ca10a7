"""The messages of one conversation, in order, each once; knows no I/O and no clock."""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Iterable, Sequence
from typing import Final, Literal

import msgspec

from .models import Draft, Entry, Id, Message, Status

__all__ = ["KEPT", "Change", "Timeline"]

KEPT: Final = 5_000
"""Entries a timeline holds; beyond them the oldest go, and can be fetched again."""

AHEAD: Final = 1_000
"""Messages whose status is remembered though they are not here yet."""

_Place = tuple[int, float, str, str]
"""Where a message stands: numbered ones by number, then the others by time and by id."""

# How far a message that the backend has can have come; the other two are for unsent ones.
_STEPS: Final = {Status.SENT: 0, Status.DELIVERED: 1, Status.READ: 2}


class Change(msgspec.Struct, frozen=True):
    """What has become of one entry.

    Changes are applied one after the other, in their order: each `after` is right once those
    before it are applied.

    Attributes:
        kind: `added`, `updated` (same key and place, new content or status), `moved` (an own
            message got its place among the others; a screen need not follow at once; its content
            and status may be new as well) or `removed`.
        entry: The entry as it is now, or, removed, as it was last.
        after: Key of the entry it stands behind in `entries`; None at the very front, and for one
            that is removed.
        is_news: Whether the timeline has never held it before and it is newer than the page the
            timeline began with: what a program wants to be told of, and a page of old messages, or
            what one has written here, is not.
    """

    kind: Literal["added", "updated", "moved", "removed"]
    entry: Entry
    after: str | None = None
    is_news: bool = False


class Timeline:
    """A contiguous run of a conversation's newest messages, and one's own unsent ones after them.

    Messages are told apart by the backend's id, and drafts are known again by their `temp_id`,
    never by what they say. Messages the backend has stand in the order of their ids where those are
    numbers, else by `sent_at` and then by id; unsent ones stand at the end in the order they were
    written.

    Args:
        me: The session's user.
        kept: Messages of the backend's to hold at the most; more only where `add_older` asks for
            them.

    Attributes:
        has_older: Whether the backend has messages before the first one.
    """

    def __init__(self, me: Id, *, kept: int = KEPT) -> None:
        self.has_older = False
        self._me = str(me)
        self._kept = self._limit = kept
        # What the backend has, in order, with the places by which it is in order.
        self._sent: list[Entry] = []
        self._places: list[_Place] = []
        self._place_of: dict[str, _Place] = {}
        # What it does not have, by temp_id, in order.
        self._unsent: dict[str, Entry] = {}
        # The one other name a message may have, its key or its temp_id, and back.
        self._id_of: dict[str, str] = {}
        self._name_of: dict[str, str] = {}
        # Ids of messages whose time the backend has not told.
        self._timeless: set[str] = set()
        # Where the page ended with which the timeline began.
        self._began_at: _Place | None = None
        # Up to where one's own messages have come this far, whether they are here yet or not.
        self._reached: dict[Status, _Place] = {}
        self._ahead: dict[str, Status] = {}

    # What a screen shows

    @property
    def entries(self) -> Sequence[Entry]:
        """All entries, oldest first; a copy."""
        return [*self._sent, *self._unsent.values()]

    @property
    def last(self) -> Entry | None:
        """The newest entry, unsent ones too; None if there is none."""
        if self._unsent:
            return self._unsent[next(reversed(self._unsent))]
        return self._sent[-1] if self._sent else None

    def __len__(self) -> int:
        return len(self._sent) + len(self._unsent)

    def get(self, key: str) -> Entry | None:
        """The entry of a key, of a backend's id or of a `temp_id`; None if there is none."""
        unsent = self._unsent.get(key)
        if unsent is not None:
            return unsent
        id_ = self._id_of.get(key, key)
        return self._sent[self._index(id_)] if id_ in self._place_of else None

    @property
    def oldest_id(self) -> str | None:
        """The id of the first message the backend has; None if there is none."""
        return self._sent[0].id if self._sent else None

    @property
    def newest_id(self) -> str | None:
        """The id of the last message the backend has; None if there is none."""
        return self._sent[-1].id if self._sent else None

    def id_before_newest(self, count: int) -> str | None:
        """The id of the message that stands `count` places before the newest, or of the oldest.

        Catching up begins there and not at the newest: messages sent at the same moment may have
        arrived in another order than they are numbered, and one of them not at all.
        """
        return self._sent[max(0, len(self._sent) - 1 - count)].id if self._sent else None

    # What the backend has

    def add(self, message: Message, *, temp_id: str | None = None) -> list[Change]:
        """Take a message the backend has, from an event, an answer or a page.

        One that is there is merged: a status never goes back, an unsent one with this `temp_id`
        (or the message's own) becomes it and keeps its key, and if both stood there, the unsent one
        goes. A read message of one's own makes one's earlier ones read. One older than the first
        entry is left out while `has_older` says that there are others between.
        """
        first = self._places[0] if self._places and self.has_older else None
        changes = self._take(message, temp_id, not_before=first, may_be_news=True)
        return changes + self._shorten(self._limit)

    def add_newer(self, messages: Iterable[Message]) -> list[Change]:
        """Take what a catch-up fetched; like `add` for each."""
        return [change for message in messages for change in self.add(message)]

    def add_older(self, messages: Sequence[Message], *, has_older: bool) -> list[Change]:
        """Take a page from before the first entry.

        The timeline then holds as many as are asked for, until `trim`: what a reader has gone back
        to does not go from under his eyes.
        """
        near = _time_of(self._places[0]) if self._places else None
        changes: list[Change] = []
        for message in messages:
            changes += self._take(message, None, near=near)
        # An empty page that promises more would be asked for for ever.
        self.has_older = has_older and bool(messages)
        self._limit = max(self._limit, len(self._sent))
        return changes

    def replace(self, messages: Sequence[Message], *, has_older: bool) -> None:
        """Begin anew with the newest page; unsent entries stay, unless the page has them.

        So do messages that have come by `add` since the last beginning and are newer than the page:
        they arrived while it was fetched.
        """
        for message in messages:
            self._take(message)
        page = {str(message.id) for message in messages}
        began_at = self._began_at
        end = max((self._place_of[id_] for id_ in page), default=None)
        staying: list[Entry] = []
        for entry, place in zip(self._sent, self._places, strict=True):
            has_come = began_at is None or place > began_at
            if entry.id in page or (has_come and (end is None or place > end)):
                staying.append(entry)
            else:
                self._forget(entry)
        self._sent = staying
        self._places = [self._place_of[_id(entry)] for entry in staying]
        self.has_older = has_older
        self._began_at = end
        self._limit = self._kept
        self._shorten(self._limit)

    def trim(self, kept: int) -> None:
        """Let go of all but the newest `kept` messages the backend has; unsent ones stay."""
        self._limit = self._kept
        self._shorten(kept)

    # What it does not have yet

    def write(self, draft: Draft, sender_name: str = "") -> Change:
        """Show an own message that is not sent yet."""
        there = self.get(draft.temp_id)
        if there is not None and there.id is not None:
            return Change("updated", there, self._key_before(self._index(there.id)))
        entry = Entry(
            key=draft.temp_id,
            id=None,
            conversation_id=draft.conversation_id,
            sender_id=self._me,
            sender_name=sender_name,
            content=draft.content,
            sent_at=draft.created_at,
            status=Status.FAILED if draft.failure else Status.SENDING,
            is_mine=True,
            failure=draft.failure,
        )
        self._unsent[draft.temp_id] = entry
        kind: Literal["added", "updated"] = "added" if there is None else "updated"
        return Change(kind, entry, self._key_before_unsent(draft.temp_id))

    def sending(self, temp_id: str) -> list[Change]:
        """An unsent message is tried (again)."""
        return self._update_unsent(temp_id, Status.SENDING, "")

    def failed(self, temp_id: str, why: str) -> list[Change]:
        """An unsent message could not be sent."""
        return self._update_unsent(temp_id, Status.FAILED, why)

    def discard(self, temp_id: str) -> list[Change]:
        """Take an unsent message away; one the backend has stays."""
        entry = self._unsent.pop(temp_id, None)
        return [] if entry is None else [Change("removed", entry)]

    # How far it has come

    def mark(self, ids: Iterable[Id], status: Status) -> list[Change]:
        """Messages have come further; steps back are left out.

        What is said of a message that is not here yet holds when it comes: it may be read before
        the answer to its sender is.
        """
        changes: list[Change] = []
        if status not in _STEPS:
            return changes
        for id_ in map(str, ids):
            place = self._place_of.get(id_)
            if place is None:
                self._remember(id_, status)
                continue
            index = bisect_left(self._places, place)
            if status is Status.READ and self._sent[index].is_mine:
                changes += self._reach(status, place)
            changes += self._raise(index, status)
        return changes

    def mark_up_to(self, message_id: Id, status: Status) -> list[Change]:
        """One's own messages up to one, which need not be here, have come further.

        One that is not here says where it stands only by a number; else nothing is marked.
        """
        place = self._place_of_any(str(message_id))
        return [] if place is None or status not in _STEPS else self._reach(status, place)

    # What is unread

    def others_after(self, message_id: Id | None) -> int:
        """How many messages of others stand after one.

        All of them, if it is None, or not here and its id no number: then it is an older one.
        """
        place = None if message_id is None else self._place_of_any(str(message_id))
        start = 0 if place is None else bisect_right(self._places, place)
        return sum(not self._sent[index].is_mine for index in range(start, len(self._sent)))

    def newest_of_others(self, up_to: Id | None = None) -> str | None:
        """The id of the newest message of somebody else, at or before `up_to`."""
        end = len(self._sent)
        if up_to is not None:
            place = self._place_of_any(str(up_to))
            end = 0 if place is None else bisect_right(self._places, place)
        for index in range(end - 1, -1, -1):
            if not self._sent[index].is_mine:
                return self._sent[index].id
        return None

    # Take a message

    def _take(
        self,
        message: Message,
        temp_id: str | None = None,
        *,
        not_before: _Place | None = None,
        near: float | None = None,
        may_be_news: bool = False,
    ) -> list[Change]:
        """Merge a message, or put it into its place.

        Args:
            message: It.
            temp_id: What its sender called it, if it was told beside the message.
            not_before: One that would stand before this is left out.
            near: The time of one that has none; by default the newest's.
            may_be_news: Whether it is news if it is new.
        """
        id_ = str(message.id)
        is_mine = str(message.sender_id) == self._me
        # Another's temp_id means nothing: who has seen one's own could send it back.
        name = (temp_id or message.temp_id or None) if is_mine else None
        if id_ in self._place_of:
            changes = [] if name is None else self.discard(name)
            self._call(id_, name)
            return changes + self._merge(id_, message)
        if near is None:
            near = _time_of(self._places[-1]) if self._places else -float("inf")
        place = _place(id_, near if message.sent_at is None else message.sent_at.timestamp())
        # A backend may also take the temp_id as the message's id.
        draft = next((d for d in (name, id_) if d in self._unsent), None) if is_mine else None
        if not_before is not None and place < not_before:
            return [] if draft is None else self.discard(draft)
        before = None if draft is None else self._key_before_unsent(draft)
        unsent = None if draft is None else self._unsent.pop(draft)
        entry = Entry(
            key=self._key_for(id_) if unsent is None else unsent.key,
            id=id_,
            conversation_id=str(message.chat_id),
            sender_id=str(message.sender_id),
            sender_name=message.sender_name or (unsent.sender_name if unsent is not None else ""),
            content=message.content,
            sent_at=message.sent_at or (unsent.sent_at if unsent is not None else None),
            status=self._status_of(id_, place, message.status, is_mine),
            is_mine=is_mine,
        )
        index = self._insert(entry, place)
        if message.sent_at is None:
            self._timeless.add(id_)
        self._call(id_, entry.key if entry.key != id_ else name)
        after = self._key_before(index)
        if unsent is None:
            is_news = may_be_news and (self._began_at is None or place > self._began_at)
            change = Change("added", entry, after, is_news)
        else:
            change = Change("updated" if after == before else "moved", entry, after)
        return [change, *self._spread(entry, place)]

    def _merge(self, id_: str, message: Message) -> list[Change]:
        """Take what a further copy of a message says; its first time and place are the ones."""
        index = self._index(id_)
        held = self._sent[index]
        place = self._place_of[id_]
        status = self._status_of(id_, place, message.status, held.is_mine)
        gets_time = message.sent_at is not None and id_ in self._timeless
        entry = msgspec.structs.replace(
            held,
            content=message.content,
            sender_name=message.sender_name or held.sender_name,
            sent_at=message.sent_at if gets_time else held.sent_at,
            status=_further(held.status, status),
        )
        if entry == held and not gets_time:
            return []
        before = after = self._key_before(index)
        if gets_time and message.sent_at is not None:
            self._timeless.discard(id_)
            place = _place(id_, message.sent_at.timestamp())
            del self._sent[index], self._places[index]
            after = self._key_before(self._insert(entry, place))
        else:
            self._sent[index] = entry
        if entry == held and after == before:
            return []
        change = Change("updated" if after == before else "moved", entry, after)
        return [change, *self._spread(entry, place)]

    def _status_of(self, id_: str, place: _Place, said: str, is_mine: bool) -> Status:
        """How far a message has come, by what its copy says and what was heard of it before."""
        heard = self._ahead.pop(id_, Status.SENT)
        if not is_mine:
            return Status.READ if Status.READ in (said, heard) else Status.SENT
        known = [status for status, reached in self._reached.items() if place <= reached]
        told = [status for status in _STEPS if status == said]
        return _further(heard, *known, *told)

    def _spread(self, entry: Entry, place: _Place) -> list[Change]:
        """A read message of one's own makes one's earlier ones read."""
        is_read = entry.is_mine and entry.status is Status.READ
        return self._reach(Status.READ, place) if is_read else []

    def _reach(self, status: Status, place: _Place) -> list[Change]:
        """All of one's own up to a place have come this far, and those that come there later."""
        before = self._reached.get(status)
        if before is not None and place <= before:
            return []
        self._reached[status] = place
        start = 0 if before is None else bisect_right(self._places, before)
        changes: list[Change] = []
        for index in range(start, bisect_right(self._places, place)):
            if self._sent[index].is_mine:
                changes += self._raise(index, status)
        return changes

    def _raise(self, index: int, status: Status) -> list[Change]:
        """A message has come this far, if that is further than it was."""
        entry = self._sent[index]
        is_apt = entry.is_mine or status is Status.READ  # of others' there is nothing in between
        if not is_apt or _STEPS[status] <= _STEPS[entry.status]:
            return []
        entry = self._sent[index] = msgspec.structs.replace(entry, status=status)
        return [Change("updated", entry, self._key_before(index))]

    def _remember(self, id_: str, status: Status) -> None:
        """What is said of a message that is not here: it may come yet."""
        place = self._place_of_any(id_)
        if self.has_older and self._places and place is not None and place < self._places[0]:
            return
        self._ahead[id_] = _further(status, self._ahead.pop(id_, Status.SENT))
        if len(self._ahead) > AHEAD:
            del self._ahead[next(iter(self._ahead))]

    def _update_unsent(self, temp_id: str, status: Status, failure: str) -> list[Change]:
        held = self._unsent.get(temp_id)
        if held is None or (held.status, held.failure) == (status, failure):
            return []
        entry = msgspec.structs.replace(held, status=status, failure=failure)
        self._unsent[temp_id] = entry
        return [Change("updated", entry, self._key_before_unsent(temp_id))]

    # Places and names

    def _insert(self, entry: Entry, place: _Place) -> int:
        """Put an entry into its place; nearly always that is the end."""
        is_newest = not self._places or place > self._places[-1]
        index = len(self._places) if is_newest else bisect_left(self._places, place)
        self._sent.insert(index, entry)
        self._places.insert(index, place)
        self._place_of[_id(entry)] = place
        return index

    def _index(self, id_: str) -> int:
        return bisect_left(self._places, self._place_of[id_])

    def _place_of_any(self, id_: str) -> _Place | None:
        """Where a message stands, or would stand; None if only the message itself could tell."""
        place = self._place_of.get(id_)
        return place if place is not None or not _is_number(id_) else _place(id_, 0.0)

    def _key_before(self, index: int) -> str | None:
        return self._sent[index - 1].key if index else None

    def _key_before_unsent(self, temp_id: str) -> str | None:
        before = self._key_before(len(self._sent))
        for key in self._unsent:
            if key == temp_id:
                break
            before = key
        return before

    def _key_for(self, id_: str) -> str:
        """A key for a message that was no draft: its id, unless that is another's key or name."""
        key = id_
        while key in self._unsent or key in self._id_of or key in self._place_of:
            key = f"#{key}"
        return key

    def _call(self, id_: str, name: str | None) -> None:
        """Know a message by another name too, unless it has one, or the name is another's."""
        if not name or name == id_ or id_ in self._name_of or name in self._id_of:
            return
        namesake = self.get(name)
        if namesake is None or namesake.key != name:
            self._id_of[name] = id_
            self._name_of[id_] = name

    def _shorten(self, kept: int) -> list[Change]:
        """Let go of the oldest beyond so many."""
        count = len(self._sent) - kept
        if count <= 0:
            return []
        gone = self._sent[:count]
        del self._sent[:count], self._places[:count]
        for entry in gone:
            self._forget(entry)
        self.has_older = True
        return [Change("removed", entry) for entry in gone]

    def _forget(self, entry: Entry) -> None:
        id_ = _id(entry)
        del self._place_of[id_]
        self._timeless.discard(id_)
        name = self._name_of.pop(id_, None)
        if name is not None:
            del self._id_of[name]


def _id(entry: Entry) -> str:
    assert entry.id is not None
    return entry.id


def _further(*statuses: Status) -> Status:
    return max(statuses, key=_STEPS.__getitem__)


def _is_number(id_: str) -> bool:
    return id_.isascii() and id_.isdecimal()


def _place(id_: str, time: float) -> _Place:
    if not _is_number(id_):
        return (1, time, id_, "")
    # Compared by length and as text: a stranger's number may be too long to be made one.
    digits = id_.lstrip("0")
    return (0, len(digits), digits, id_)


def _time_of(place: _Place) -> float:
    """The time by which a message stands where it stands."""
    return place[1] if place[0] else -float("inf")
