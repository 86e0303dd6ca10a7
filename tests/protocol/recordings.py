"""The recordings under `tests/data`, and what a `ClientProtocol` makes of them."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl, urlsplit

import msgspec

from antiphon.errors import AntiphonError, MalformedFrame, ServerReportedError, SubscriptionFailed
from antiphon.protocol.client import ClientProtocol, Received, State

DATA = Path(__file__).parents[1] / "data"

FROM_SERVER = ("in", "recv", "s2c")
FROM_CLIENT = ("out", "send", "c2s")

_CUT = re.compile(r"…(\(\d+\)|\.*\[\d+ bytes in all\])$")


class Line(msgspec.Struct):
    """One line of a recording, the names of its three recorders brought together."""

    dir: str
    t_ms: float = 0.0
    conn: str = ""
    raw: str | None = None
    text: str | None = None
    control: str = ""
    code: int | None = None
    reason: str = ""

    @property
    def frame(self) -> str | None:
        """The text of a WebSocket text message, or None."""
        if self.dir not in FROM_SERVER + FROM_CLIENT or self.control:
            return None
        return self.text if self.raw is None else self.raw

    @property
    def cut(self) -> bool:
        """Whether the recorder kept only the beginning of the frame."""
        return self.frame is not None and _CUT.search(self.frame) is not None

    @property
    def json(self) -> Any:
        """The decoded frame; None if it is no JSON."""
        if self.frame is None or self.cut:
            return None
        try:
            return json.loads(self.frame)
        except ValueError:
            return None


def names(*folders: str) -> list[str]:
    """All recordings of these folders, such as `reverb/ping`."""
    return [
        f"{folder}/{path.stem}" for folder in folders for path in (DATA / folder).glob("*.jsonl")
    ]


def objects(name: str) -> list[dict[str, Any]]:
    """The lines of a recording as they stand."""
    text = (DATA / f"{name}.jsonl").read_text(encoding="utf-8")
    return [json.loads(line) for line in text.split("\n") if line]


def lines(name: str) -> list[Line]:
    """The lines of a recording."""
    return msgspec.convert(objects(name), list[Line], strict=False)


def client_frames(name: str) -> list[str]:
    """The text messages that the recorded client sent."""
    return [
        line.frame
        for line in lines(name)
        if line.dir in FROM_CLIENT and line.frame is not None and not line.cut
    ]


class Replay:
    """What the machines made of one recording, by connection.

    A machine is told of the recorded client's subscriptions, as it would have sent them itself.
    """

    def __init__(self, name: str) -> None:
        self.clients: dict[str, ClientProtocol] = {}
        self.outcomes: dict[str, list[Received]] = {}
        self.sent: dict[str, list[bytes]] = {}
        # The text of a frame and what came of it, in the order of the recording.
        self.steps: list[tuple[str, str, Received | None]] = []
        for line in lines(name):
            self._play(line)

    def __getitem__(self, conn: str) -> list[Received]:
        return self.outcomes[conn]

    def told(self, conn: str) -> list[object]:
        """The outcomes of a connection, errors as tuples, so that they can be compared."""
        return [told(outcome) for outcome in self.outcomes[conn]]

    def failures(self) -> list[AntiphonError]:
        """All errors, in the order of the recording."""
        return [outcome for _, _, outcome in self.steps if isinstance(outcome, AntiphonError)]

    def _play(self, line: Line) -> None:
        conn, now = line.conn, line.t_ms / 1000
        if line.dir == "connect":
            self.clients[conn] = ClientProtocol(now, pong_timeout=3600)  # it is asked for no pings
            self.outcomes[conn], self.sent[conn] = [], []
            return
        client = self.clients.get(conn)
        if client is None:
            return
        outcome: Received | None = None
        if line.dir == "close":
            outcome = client.receive_close(line.code, line.reason)
        elif line.dir == "ping_frame_in" or (line.dir in FROM_SERVER and line.control):
            client.receive_activity(now)
        elif line.dir in FROM_SERVER and line.frame is not None:
            outcome = client.receive_message(line.frame, now)
            self.steps.append((conn, line.frame, outcome))
        elif line.frame is not None and client.state is not State.CLOSED:
            _repeat(client, line.json)
            return
        if outcome is not None:
            self.outcomes[conn].append(outcome)
        self.sent[conn] += client.data_to_send()


def told(outcome: Received) -> object:
    """An outcome in a form that can be compared: errors have no equality of their own."""
    match outcome:
        case SubscriptionFailed(channel=channel, code=code):
            return ("subscription failed", channel, code)
        case ServerReportedError(code=code):
            return ("server reported", code)
        case MalformedFrame():
            return ("malformed",)
        case AntiphonError():
            raise AssertionError(f"No machine reports {outcome!r}")
        case _:
            return outcome


def _repeat(client: ClientProtocol, frame: Any) -> None:
    """Let the machine subscribe where the recorded client did."""
    if not isinstance(frame, dict) or not isinstance(frame.get("data"), dict):
        return
    event, data = frame.get("event"), frame["data"]
    channel = data.get("channel")
    if isinstance(channel, str) and event == "pusher:subscribe":
        client.subscribe(channel, data.get("auth"), data.get("channel_data"))
    elif isinstance(channel, str) and event == "pusher:unsubscribe":
        client.unsubscribe(channel)
    client.data_to_send()


class HttpRequest(msgspec.Struct):
    """One recorded request to the HTTP API."""

    method: str
    path: str
    query: list[tuple[str, str]]
    body: bytes
    refused: bool

    @property
    def cut(self) -> bool:
        """Whether the recorder kept only the beginning of the body."""
        return self.body.endswith(b"...[cut]")

    @property
    def timestamp(self) -> int:
        """When it was signed."""
        return int(dict(self.query)["auth_timestamp"])


def http_requests(name: str) -> Iterator[HttpRequest]:
    """The requests of a recorded HTTP client."""
    for recorded in objects(f"http-clients/{name}"):
        head, _, body = recorded["request"].partition("\r\n\r\n")
        method, target, _ = head.split("\r\n")[0].split(" ")
        parts = urlsplit(target)
        yield HttpRequest(
            method,
            parts.path,
            parse_qsl(parts.query, keep_blank_values=True),
            body.encode(),
            '"code":401' in recorded["response"],
        )
