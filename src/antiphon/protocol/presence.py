"""Who is in a presence channel, in all the shapes servers send it.

Seen: ids as numbers (Reverb), `hash` as a list when ids are 0..n and as `[]` when empty (PHP),
`user_info` missing or `[]` (PROTOCOL §1.4 row 33, §1.10).
"""

from __future__ import annotations

from typing import Any

import msgspec

from .frames import decode_data

__all__ = ["Member", "parse_channel_data", "parse_member", "parse_members"]


class Member(msgspec.Struct, frozen=True):
    """One user in a presence channel.

    Attributes:
        id: The user's id, always text.
        info: What the authorizer said of the user; None if nothing.
    """

    id: str
    info: Any = None


def parse_members(raw: Any) -> dict[str, Member]:
    """The members in the data of a presence channel's `subscription_succeeded`, by id."""
    data = decode_data(raw)
    presence = data.get("presence") if isinstance(data, dict) else None
    if not isinstance(presence, dict):
        return {}
    infos = presence.get("hash")
    by_id = {str(id_): info for id_, info in _items(infos)}
    ids = presence.get("ids")
    listed = [str(id_) for id_ in ids if _is_id(id_)] if isinstance(ids, list) else list(by_id)
    return {id_: Member(id_, by_id.get(id_)) for id_ in listed}


def parse_member(raw: Any) -> Member | None:
    """The member in the data of `member_added` or `member_removed`; None if there is none."""
    data = decode_data(raw)
    if not isinstance(data, dict) or not _is_id(data.get("user_id")):
        return None
    return Member(str(data["user_id"]), data.get("user_info"))


def parse_channel_data(text: str) -> Member | None:
    """The user an authorizer named in `channel_data`; None if it names none."""
    return parse_member(text)


def _items(infos: Any) -> list[tuple[Any, Any]]:
    if isinstance(infos, dict):
        return list(infos.items())
    # PHP writes an array whose keys are 0..n as a list: the index is the id.
    return list(enumerate(infos)) if isinstance(infos, list) else []


def _is_id(value: Any) -> bool:
    return (isinstance(value, str) and value != "") or (
        isinstance(value, int) and not isinstance(value, bool)
    )
