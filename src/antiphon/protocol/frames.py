"""Frames on the wire, and their double encoding: `data` is usually JSON inside a JSON string.

A frame is one open struct and no tagged union, because event names are the users' own. Nothing
outside this file knows that `data` may be a string holding JSON, a plain string, or bare JSON.
"""

from __future__ import annotations

from typing import Any, Final, TypeVar

import msgspec

from antiphon.errors import MalformedFrame

__all__ = [
    "NAMELESS",
    "UNUSUAL",
    "ClientFrame",
    "Event",
    "decode_client_frame",
    "decode_data",
    "decode_data_as",
    "decode_event",
    "decode_odd_event",
    "decode_usual_event",
    "encode",
]

T = TypeVar("T")

_EXCERPT: Final = 80


class Event(msgspec.Struct, frozen=True, gc=False, kw_only=True):
    """One event as a client receives it.

    Attributes:
        name: The event's name.
        channel: The channel's name, or None for the connection itself.
        raw: `data` as it stood on the wire: a string, or bare JSON as Python values.
        user_id: Who sent it: set by the server on client events of presence channels.
    """

    name: str = msgspec.field(name="event")
    channel: str | None = None
    raw: Any = msgspec.field(name="data", default=None)
    user_id: str | None = None

    @property
    def data(self) -> Any:
        """The data as Python values; a string that holds no JSON stays that string."""
        return decode_data(self.raw)


class ClientFrame(msgspec.Struct, frozen=True, gc=False):
    """One frame as a server receives it; `data` stays raw, to be passed on untouched."""

    event: str
    channel: str | None = None
    data: msgspec.Raw = msgspec.Raw()


class _Outgoing(msgspec.Struct, omit_defaults=True, gc=False):
    # The key order of Reverb and the hosted service.
    event: str
    data: Any = None
    channel: str | None = None
    user_id: str | None = None


UNUSUAL: Final = (msgspec.MsgspecError, UnicodeError, RecursionError)
"""What `decode_usual_event` raises where `decode_odd_event` may help."""

NAMELESS: Final = "A frame without an event name arrived."

decode_usual_event: Final = msgspec.json.Decoder(Event).decode
"""Read a frame whose fields have the types they should; the name may still be empty."""

_decode_client_frame: Final = msgspec.json.Decoder(ClientFrame).decode
_decode_any: Final = msgspec.json.Decoder().decode
_encode: Final = msgspec.json.Encoder().encode


def decode_event(payload: str | bytes | memoryview) -> Event:
    """Read a frame from a server.

    Raises:
        MalformedFrame: It is no JSON object with an `event`.
    """
    try:
        event = decode_usual_event(payload)
    except UNUSUAL:
        event = decode_odd_event(payload)
    if not event.name:
        raise MalformedFrame(NAMELESS)
    return event


def decode_odd_event(payload: str | bytes | memoryview) -> Event:
    """Read a frame whose fields have other types than they should, as far as it makes sense.

    Raises:
        MalformedFrame: It is no JSON object with an `event` and, if any, a `channel` string.
    """
    try:
        frame = _decode_any(payload)
    except (msgspec.MsgspecError, UnicodeError, RecursionError) as exc:
        raise MalformedFrame(f"A frame that is no JSON arrived: {_describe(payload, exc)}") from exc
    if not isinstance(frame, dict) or not isinstance(frame.get("event"), str):
        raise MalformedFrame(f"A frame without an event name arrived: {_excerpt(payload)}")
    channel, user_id = frame.get("channel"), frame.get("user_id")
    if channel is not None and not isinstance(channel, str):
        raise MalformedFrame(f"A frame with an unusable channel arrived: {_excerpt(payload)}")
    # Reverb keeps a user's id as the number it was (PROTOCOL §1.10).
    return Event(
        name=frame["event"],
        channel=channel,
        raw=frame.get("data"),
        user_id=None if user_id is None else str(user_id),
    )


def decode_client_frame(text: str) -> ClientFrame:
    """Read a frame from a client.

    Raises:
        MalformedFrame: It is no JSON object with an `event` and, if any, a `channel` string.
    """
    try:
        frame = _decode_client_frame(text)
    except (msgspec.MsgspecError, UnicodeError, RecursionError) as exc:
        raise MalformedFrame(str(exc)) from exc
    if not frame.event:
        raise MalformedFrame("The event has no name")
    return frame


def decode_data(raw: Any) -> Any:
    """`data` as Python values: the JSON inside a string, or what it is where there is none."""
    if not isinstance(raw, str):
        return raw
    try:
        return _decode_any(raw)
    except (msgspec.MsgspecError, UnicodeError, RecursionError):
        return raw


def decode_data_as(raw: Any, decoder: msgspec.json.Decoder[T]) -> T:
    """`data` as a decoder's type, straight from the text where it is text.

    Raises:
        msgspec.ValidationError: It does not fit the type.
    """
    if not isinstance(raw, str):
        return msgspec.convert(raw, decoder.type)
    try:
        return decoder.decode(raw)
    except (msgspec.MsgspecError, UnicodeError, RecursionError) as exc:
        # A plain string, then: "5 minutes" is one, and so is "42" where text is asked for.
        try:
            return msgspec.convert(raw, decoder.type)
        except msgspec.ValidationError:
            if isinstance(exc, msgspec.ValidationError):
                raise exc from None  # it is JSON, and says better where it does not fit
            raise


def encode(
    event: str,
    data: Any = None,
    channel: str | None = None,
    user_id: str | None = None,
) -> bytes:
    """Write a frame; fields that are None are left out.

    Args:
        event: The event's name.
        data: A string (JSON already encoded, or plain), any JSON value, or `msgspec.Raw`.
        channel: The channel, if it belongs to one.
        user_id: The authenticated sender of a client event on a presence channel.
    """
    return _encode(_Outgoing(event, data, channel, user_id))


def _describe(payload: str | bytes | memoryview, exc: Exception) -> str:
    reason = "nested too deep" if isinstance(exc, RecursionError) else str(exc)
    return f"{_excerpt(payload)} ({reason})"


def _excerpt(payload: str | bytes | memoryview) -> str:
    head = payload[:_EXCERPT]
    text = head if isinstance(head, str) else bytes(head).decode("utf-8", "replace")
    return repr(text) + ("…" if len(payload) > _EXCERPT else "")
