from __future__ import annotations

import inspect
import re
from typing import TypeVar

import pytest

from antiphon import errors
from antiphon.errors import (
    AntiphonError,
    ApiError,
    AuthorizationFailed,
    ConnectionFailed,
    EventFailed,
    InvalidName,
    PublishFailed,
    SettingsError,
    SubscriptionFailed,
    WebhookInvalid,
    sentence,
)

E = TypeVar("E", bound=AntiphonError)


def drawn_tree() -> dict[str, str | None]:
    """Every name in the docstring's tree and the name above it."""
    parents: dict[str, str | None] = {}
    path: list[str] = []
    for line in (errors.__doc__ or "").splitlines():
        branch = re.match(r"((?:│   |    )*(?:├── |└── ))?([A-Z]\w+)(?(1) |$)", line)
        if branch is None:
            continue
        depth = len(branch[1] or "") // 4
        path[depth:] = [branch[2]]
        parents[branch[2]] = path[depth - 1] if depth else None
    return parents


def real_tree() -> dict[str, str | None]:
    """Every error class and its first base among the errors."""
    return {
        name: None if cls is AntiphonError else cls.__bases__[0].__name__
        for name, cls in vars(errors).items()
        if inspect.isclass(cls) and issubclass(cls, AntiphonError)
    }


def subclasses(base: type[E]) -> list[type[E]]:
    return [
        getattr(errors, name) for name in real_tree() if issubclass(getattr(errors, name), base)
    ]


def test_the_tree_in_the_docstring_is_the_real_one() -> None:
    assert len(drawn_tree()) > 20
    assert drawn_tree() == real_tree()


def test_every_error_is_exported_and_little_else() -> None:
    assert set(errors.__all__) == {*real_tree(), "ErrorKind", "sentence"}
    assert errors.__all__ == sorted(errors.__all__)


def test_every_error_is_an_antiphon_error_three_levels_deep_at_most() -> None:
    for cls in subclasses(AntiphonError):
        lineage = [base for base in cls.__mro__ if issubclass(base, AntiphonError)]
        assert len(lineage) <= 4


@pytest.mark.parametrize("cls", [SettingsError, InvalidName, WebhookInvalid])
def test_a_wrong_value_is_a_value_error_too(cls: type[AntiphonError]) -> None:
    assert issubclass(cls, ValueError)


def test_every_error_says_what_it_concerns() -> None:
    assert {cls.kind for cls in subclasses(SubscriptionFailed)} == {"subscription"}
    assert {cls.kind for cls in subclasses(EventFailed)} == {"event"}
    assert {cls.kind for cls in subclasses(ConnectionFailed)} == {"connection"}
    assert {cls.kind for cls in subclasses(AntiphonError)} == {
        "connection",
        "subscription",
        "event",
    }


@pytest.mark.parametrize(
    "cls", [*subclasses(ConnectionFailed), *subclasses(PublishFailed), *subclasses(ApiError)]
)
def test_an_error_carries_the_peers_number(cls: type[ConnectionFailed]) -> None:
    assert cls("words").code is None
    raised = cls("words", code=4001)
    assert (str(raised), raised.code) == ("words", 4001)


@pytest.mark.parametrize("cls", subclasses(SubscriptionFailed))
def test_a_failed_subscription_names_its_channel(cls: type[SubscriptionFailed]) -> None:
    raised = cls("words", channel="private-room")
    assert (str(raised), raised.channel, raised.code) == ("words", "private-room", None)
    assert cls("words", channel="private-room", code=403).code == 403


@pytest.mark.parametrize("cls", subclasses(EventFailed))
def test_a_failed_event_names_what_it_knows(cls: type[EventFailed]) -> None:
    raised = cls("words")
    assert (raised.event, raised.channel, raised.code) == (None, None, None)
    raised = cls("words", event="e", channel="c", code=4301)
    assert (str(raised), raised.event, raised.channel, raised.code) == ("words", "e", "c", 4301)


@pytest.mark.parametrize("name", real_tree())
def test_a_text_is_one_line_that_can_be_printed(name: str) -> None:
    cls = getattr(errors, name)
    named = {"channel": "private-room"} if issubclass(cls, SubscriptionFailed) else {}
    text = str(cls("bad \x1b[2J\nforged\r\x00\u2028\u202e\ud800 line é☃", **named))
    assert text == "bad  [2J forged      line é☃"
    text.encode()


def test_a_text_of_a_stranger_is_told_in_part() -> None:
    assert str(AntiphonError("x" * 600)) == "x" * 600
    assert str(AntiphonError("x" * 10_000)) == "x" * 600 + "…"


@pytest.mark.parametrize(
    ("text", "ended"),
    [
        ("It is gone", "It is gone."),
        ("It is gone.", "It is gone."),
        ("It is gone..", "It is gone."),
        ("Is it gone?", "Is it gone?"),
        ("It is gone!", "It is gone!"),
        ("It is…", "It is…"),
    ],
)
def test_a_sentence_ends_in_one_mark(text: str, ended: str) -> None:
    assert sentence(text) == ended


def test_one_clause_catches_every_way_an_authorization_fails() -> None:
    assert len(subclasses(AuthorizationFailed)) == 8
    for cls in subclasses(AuthorizationFailed):
        with pytest.raises(SubscriptionFailed):
            raise cls("words", channel="private-room")
