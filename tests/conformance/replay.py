"""Recordings of other servers, said again to ours: what theirs answered, and what ours does.

A recording is read into steps. What its client did is done again on fresh connections, with every
signature that was right made anew for the new socket id and the present time, and every one that
was wrong left wrong. After each step the connections are asked, by WebSocket pings, whether the
server has said all it has to say; so nothing here waits for a clock.

What both sides said is brought into one form, a line for each message of each connection:

- socket ids are the connection's name, and texts meant for people are left out (an error is its
  code, a refused subscription its status, a refused request its status);
- `data` is what it holds, whether it came as an object or as a string of JSON; where soketi and
  Reverb leave out empty data, it is `{}`;
- soketi says `200` to nearly every request and puts the status into the body: it is taken from
  there, and its `{"ok":true}` is `{}`.
"""

from __future__ import annotations

import asyncio
import base64
import contextlib
import hashlib
import hmac
import json
import re
import time
from collections.abc import Iterator, Sequence
from difflib import SequenceMatcher
from email.utils import parsedate_to_datetime
from pathlib import Path
from typing import Any, Final
from urllib.parse import parse_qsl, urlencode, urlsplit

from antiphon.protocol.signing import channel_auth, user_auth
from antiphon.server import Server
from antiphon.settings import App
from tests.server.wire import (
    BINARY,
    CLOSE,
    CONTINUATION,
    PING,
    PONG,
    TEXT,
    TIMEOUT,
    Closed,
    HandshakeRefused,
    Wire,
)

DATA: Final = (Path(__file__).parents[1] / "data", Path(__file__).parent / "data")

_CUT: Final = re.compile(r"…\((\d+)\)$|\.\.\.\[(\d+) bytes in all\]$")
_NO_DATA: Final = ("pusher_internal:subscription_succeeded", "pusher:pong")
# What these clients said at the handshake that their recorders did not write down.
_OFFERS: Final = {
    "sub": {"Sec-WebSocket-Protocol": "pusher-channels-protocol-7"},
    "subproto": {"Sec-WebSocket-Protocol": "pusher-channels-protocol-7"},
    "deflate": {"Sec-WebSocket-Extensions": "permessage-deflate; client_max_window_bits"},
}


def files() -> dict[str, Path]:
    """All recordings, as `folder/name`."""
    return {
        f"{path.parent.name.removesuffix('_danger')}/{path.stem}": path
        for folder in DATA
        for path in folder.glob("*/*.jsonl")
    }


def lines(name: str) -> list[dict[str, Any]]:
    """The lines of a recording."""
    text = files()[name].read_text(encoding="utf-8")
    recorded = [json.loads(line) for line in text.split("\n") if line]
    return [line for each in recorded for line in ([each] if "dir" in each else _exchange(each))]


def _exchange(recorded: dict[str, str]) -> list[dict[str, Any]]:
    """A library's request and the answer, recorded as raw HTTP, as soketi's recorder has them."""
    head, _, body = recorded["request"].partition("\r\n\r\n")
    answer, _, content = recorded["response"].partition("\r\n\r\n")
    if body.endswith("...[cut]"):
        # The data repeats one character; npm's library has the channels behind it, PyPI's before.
        size = int(dict(_fields(head))["content-length"])
        start = body.index('"', body.index('"data"') + 6) + 1
        unit = "x" if body[start] == "x" else "\\ud83d\\ude00"
        kept, end = body[:start], '"}' if '"channels"' in body[:start] else '","channels":["pub"]}'
        body = kept + unit * ((size - len(kept) - len(end)) // len(unit)) + end
    return [
        {
            "dir": "http_req",
            "line": head.split("\r\n")[0],
            **({"body": body} if body else {}),
        },
        {
            "dir": "http_res",
            "status": answer.split("\r\n")[0].partition(" ")[2],
            "headers": {"Date": dict(_fields(answer))["date"]},
            "body": content,
        },
    ]


def _fields(head: str) -> Iterator[tuple[str, str]]:
    for line in head.split("\r\n")[1:]:
        name, _, value = line.partition(": ")
        yield name.lower(), value


class Step:
    """What a client did, and what both servers said to it, by connection (`http` for requests)."""

    def __init__(self) -> None:
        self.done: list[str] = []
        self.theirs: dict[str, list[str]] = {}
        self.ours: dict[str, list[str]] = {}

    def differences(self) -> list[str]:
        """What was done (`>`), what only they (`-`) and only we (`+`) said; nothing if alike."""
        told: list[str] = []
        for conn in sorted(self.theirs.keys() | self.ours.keys()):
            theirs, ours = self.theirs.get(conn, []), self.ours.get(conn, [])
            for kind, a0, a1, b0, b1 in SequenceMatcher(
                None, theirs, ours, autojunk=False
            ).get_opcodes():
                if kind != "equal":
                    told += [f"- {conn}: {line}" for line in theirs[a0:a1]]
                    told += [f"+ {conn}: {line}" for line in ours[b0:b1]]
        return [f"> {line}" for line in self.done] + told if told else []


class Replay:
    """One recording, played to one server.

    Args:
        name: The recording, such as `reverb/ping`.
        server: Who is asked.
        apps: The applications it serves.
        drops: Connections that the recorded client dropped without a close frame.
    """

    def __init__(
        self, name: str, server: Server, apps: Sequence[App], drops: Sequence[str] = ()
    ) -> None:
        self.steps = [Step()]
        self._lines = _requests_first(lines(name))
        self._server = server
        self._secrets = {app.key: app.secret for app in apps}
        self._drops = drops
        self._wires: dict[str, Wire] = {}
        self._keys: dict[str, str] = {}
        self._recorded_ids: dict[str, str] = {}
        self._ids: dict[str, str] = {}
        self._recorded_at = _recorded_at(self._lines)
        self._named = ""
        self._pings = 0

    async def play(self) -> list[list[str]]:
        """Do what the client did; where the servers differed, step by step."""
        try:
            for number, line in enumerate(self._lines):
                await self._step(line, self._lines[number + 1 :])
            await self._settle()
        finally:
            for wire in self._wires.values():
                await wire.hang_up()
        return [found for step in self.steps if (found := step.differences())]

    async def _step(self, line: dict[str, Any], later: Sequence[dict[str, Any]]) -> None:
        conn = line.get("conn", "http")
        text = line.get("text") if line.get("raw") is None else line["raw"]
        match line["dir"]:
            case "note":
                self._named = str(line["text"])
            case "connect":
                self._recorded_ids[conn] = _recorded_id(conn, later)
                await self._connect(conn, line["url"], line.get("headers") or {})
            case "out" | "send" | "c2s" if line.get("control") == "ws-close":
                await self._close(conn, line.get("code"), "")
            case "out" | "send" | "c2s" if line.get("control") == "ws-ping":
                await self._say(conn, PING, str(text).encode())
            case "out" | "send" | "c2s" if not line.get("control"):
                await self._say_text(conn, str(text), is_binary=bool(line.get("binary")))
            case "send_bin":
                await self._say(conn, BINARY, base64.b64decode(line["base64"]))
            case "ping_frame_out":
                await self._say(conn, PING, line["payload"].encode())
            case "close_out":
                await self._close(conn, line.get("code"), line.get("reason", ""))
            case "in" | "recv" | "s2c" if not line.get("control"):
                await self._heard(line["dir"], conn, str(text))
            case "close":
                await self._closed(conn, line)
            case "http":
                await self._request(
                    line["request"], line["req_body"], _reverb_answer(line), line["req_headers"]
                )
            case "http_refusal":
                self._theirs(conn, f"refused {line['status']}")
            case "http_res" if "conn" in line:
                self._theirs(conn, f"refused {line['status'].split()[0]}")
            case "http_req":
                answer = _soketi_answer(later)
                await self._request(line["line"], line.get("body"), answer, {})

    # What the client did

    def _do(self, what: str) -> None:
        """Begin a step, or go on with one in which nothing has been said yet."""
        if self.steps[-1].theirs:
            self.steps.append(Step())
        named, self._named = f" [{self._named}]" if self._named else "", ""
        self.steps[-1].done.append((_short(self._told(what)) + _short(named)).rstrip())

    async def _connect(self, conn: str, url: str, headers: dict[str, str]) -> None:
        parts = urlsplit(url)
        origin = f" from {headers['Origin']}" if "Origin" in headers else ""
        self._do(f"{conn} connects to {parts.path}?{parts.query}{origin}")
        self._keys[conn] = parts.path.removeprefix("/app/")
        given = headers if "Origin" in headers else _OFFERS.get(conn, {})
        try:
            self._wires[conn] = await Wire.open(
                self._server.port, parts.path, query=parts.query, headers=given
            )
        except HandshakeRefused as refused:
            self._ours(conn, f"refused {refused.status}")
        await self._settle()

    async def _say_text(self, conn: str, text: str, *, is_binary: bool) -> None:
        self._do(f"{conn}: {text}")
        if text == "fragments":
            await self._say_parts(conn, [b'{"event":', b'"pusher:', b'ping"}'])
        elif text.startswith("fragment 6000"):
            await self._say_parts(conn, [b"x" * 6_000, b"x" * 6_000])
        else:
            fresh = self._signed_anew(conn, whole(text))
            await self._say(conn, BINARY if is_binary else TEXT, fresh.encode())

    async def _say(self, conn: str, opcode: int, payload: bytes) -> None:
        wire = self._wires.get(conn)
        if wire is not None:
            wire.send_frame(opcode, payload)
        await self._settle()

    async def _say_parts(self, conn: str, parts: Sequence[bytes]) -> None:
        wire = self._wires[conn]
        for number, part in enumerate(parts):
            opcode = CONTINUATION if number else TEXT
            wire.send_frame(opcode, part, fin=number == len(parts) - 1)
        await self._settle()

    async def _close(self, conn: str, code: int | None, reason: str) -> None:
        self._do(f"{conn} closes with {code}")
        wire = self._wires.get(conn)
        if wire is not None:
            if code is None:
                wire.send_frame(CLOSE)
            else:
                wire.send_close(code, reason)
        await self._settle()

    async def _closed(self, conn: str, line: dict[str, Any]) -> None:
        wire = self._wires.get(conn)
        if conn in self._drops:
            if wire is not None:
                del self._wires[conn]
                await wire.hang_up()
        elif not self._refused(conn):
            self._theirs(conn, f"closed {line['code']}")
            if wire is not None and line.get("by") == "client":
                wire.send_close(line["code"] if line["code"] != 1006 else 1000)
        await self._settle()

    async def _request(
        self, line: str, body: str | None, answer: str, headers: dict[str, str]
    ) -> None:
        method, target, _ = line.split(" ", 2)
        recorded = None if body is None else whole(body)
        payload = None if recorded is None else self._renamed(recorded).encode()
        path, query = self._query(method, target, (recorded or "").encode(), payload or b"")
        shown = [(k, v) for k, v in query if not k.startswith("auth_") and k != "body_md5"]
        asked = f"{method} {path}" + (f"?{urlencode(shown, safe=',')}" if shown else "")
        self._do(f"{asked} {body or ''}".rstrip())
        head = {"Host": f"127.0.0.1:{self._server.port}"}
        if payload is not None:
            head |= {"Content-Type": "application/json", "Content-Length": str(len(payload))}
        head |= {**headers, "Connection": "close"}
        if "Transfer-Encoding" in head and payload is not None:
            payload = b"%x\r\n%s\r\n0\r\n\r\n" % (len(payload), payload)
        full = f"{path}?{urlencode(query)}" if query else path
        fields = "".join(f"{name}: {value}\r\n" for name, value in head.items() if value)
        raw = f"{method} {full} HTTP/1.1\r\n{fields}\r\n".encode() + (payload or b"")
        status, content = await http(self._server.port, raw)
        self._theirs("http", answer)
        self._ours("http", _answer(status, content))
        await self._settle()

    # What the servers said

    async def _heard(self, how: str, conn: str, text: str) -> None:
        # Reverb writes the channel last; of its frames that were cut all are of c1.
        tail = "" if '"channel"' in text else ',"channel":"c1"'
        told = describe(whole(text, tail))
        self._theirs(conn, told)
        # Who recorded pusher-js did not record what was published: it is what the client got.
        is_own = not told.startswith(("pusher:", "pusher_internal:", "client-"))
        if how == "s2c" and is_own and self._short_of(conn, self._told(told)):
            frame = json.loads(text)
            for hub in self._server._hubs.values():
                if hub.app.key == self._keys[conn]:
                    hub.trigger(frame["channel"], frame["event"], frame["data"])
            await self._settle()

    async def _settle(self) -> None:
        """Read until nothing more comes; what one connection says may go round the loop once."""
        for _ in range(2):
            for conn, wire in list(self._wires.items()):
                self._pings += 1
                await self._read(conn, wire, b"settled %d" % self._pings)

    async def _read(self, conn: str, wire: Wire, mark: bytes) -> None:
        wire.send_frame(PING, mark)
        try:
            while True:
                opcode, payload = await wire.frame()
                if opcode == CLOSE:
                    raise Closed(int.from_bytes(payload[:2]) if payload else 1005, "")
                if opcode == PONG and payload == mark:
                    return
                if opcode == TEXT:
                    self._take(conn, payload.decode())
        except Closed as closed:
            self._ours(conn, f"closed {closed.code or 1006}")
            await wire.hang_up()
            del self._wires[conn]

    def _take(self, conn: str, text: str) -> None:
        frame = json.loads(text)
        if frame["event"] == "pusher:connection_established":
            self._ids[conn] = json.loads(frame["data"])["socket_id"]
        self._ours(conn, describe(text))

    def _theirs(self, conn: str, told: str) -> None:
        self.steps[-1].theirs.setdefault(conn, []).append(self._told(told))

    def _ours(self, conn: str, told: str) -> None:
        self.steps[-1].ours.setdefault(conn, []).append(self._told(told))

    def _short_of(self, conn: str, told: str) -> bool:
        """Whether their server has said this more often than ours."""
        theirs = sum(step.theirs.get(conn, []).count(told) for step in self.steps)
        return sum(step.ours.get(conn, []).count(told) for step in self.steps) < theirs

    def _refused(self, conn: str) -> bool:
        said = [line for step in self.steps for line in step.theirs.get(conn, [])]
        return bool(said) and said[-1].startswith(("refused", "closed"))

    def _told(self, text: str) -> str:
        """The line with socket ids as names, and without what is long."""
        for ids in (self._recorded_ids, self._ids):
            for conn, socket_id in ids.items():
                if socket_id:
                    text = text.replace(socket_id, f"<{conn}>")
        return re.sub(r"(.)\1{39,}", lambda run: f"{run[1]}…{len(run[0])}", text)

    # Signatures

    def _renamed(self, text: str) -> str:
        """The text with the recorded socket ids as ours."""
        for conn, socket_id in self._recorded_ids.items():
            if socket_id and conn in self._ids:
                text = text.replace(socket_id, self._ids[conn])
        return text

    def _signed_anew(self, conn: str, text: str) -> str:
        renamed = self._renamed(text)
        try:
            data = json.loads(text)["data"]
            data = json.loads(data) if isinstance(data, str) else data
            _, given = data["auth"].split(":")
        except (ValueError, KeyError, TypeError, AttributeError):
            return renamed
        key = self._keys[conn]
        for secret in self._secrets.values():
            was = _signature(key, secret, self._recorded_ids[conn], data)
            if given.lower() == was:
                fresh = _signature(key, secret, self._ids[conn], data)
                return renamed.replace(given, fresh if given == was else fresh.upper())
        return renamed

    def _query(
        self, method: str, target: str, recorded: bytes, body: bytes
    ) -> tuple[str, list[tuple[str, str]]]:
        parts = urlsplit(target)
        query = parse_qsl(parts.query, keep_blank_values=True)
        given = dict(query).get("auth_signature", "")
        signer = next(
            (
                secret
                for secret in self._secrets.values()
                if _signed(secret, method, parts.path, query) == given.lower()
            ),
            None,
        )
        if given and signer is not None:
            query = [(name, self._now(name, value, recorded, body)) for name, value in query]
            fresh = _signed(signer, method, parts.path, query)
            fresh = fresh if given.islower() else fresh.upper()
            query = [(n, fresh if n == "auth_signature" else v) for n, v in query]
        return parts.path, query

    def _now(self, name: str, value: str, recorded: bytes, body: bytes) -> str:
        if name == "auth_timestamp" and value.isdigit():
            return str(int(value) - self._recorded_at + int(time.time()))
        if name == "body_md5" and value == hashlib.md5(recorded).hexdigest():
            return hashlib.md5(body).hexdigest()
        return value


def describe(text: str) -> str:
    """A message in the form in which servers are compared."""
    frame = json.loads(text)
    event, channel, data = frame["event"], frame.get("channel"), frame.get("data")
    if isinstance(data, str):
        with contextlib.suppress(ValueError):
            data = json.loads(data)
    if event == "pusher:error":
        return f"{event} {data['code']}"
    if event == "pusher:subscription_error":
        return f"{event} {channel} {data['status']}"
    if event == "pusher:connection_established":
        assert re.fullmatch(r"\d+\.\d+", data.pop("socket_id"))
    if data is None and event in _NO_DATA:
        data = {}
    shown = [event]
    if channel is not None:
        shown.append(channel)
    if "data" in frame or data is not None:
        shown.append(_shown(data))
    if "user_id" in frame:
        shown.append(f"by {frame['user_id']!r}")
    return " ".join(shown)


def whole(text: str, tail: str = "") -> str:
    """A text of which the recorder kept the beginning, as long as it was; others as they are.

    Args:
        text: JSON, cut inside a string that repeats its last character.
        tail: What comes after that string.
    """
    cut = _CUT.search(text)
    if cut is None:
        return text
    kept = text[: cut.start()]
    closing = "".join(reversed(list(_open_ends(kept))))
    closing = closing[:-1] + tail + closing[-1:]
    size = int(cut[1] or cut[2])
    missing = size - len(kept.encode()) - len(closing)
    return kept + kept[-1] * missing + closing


def _open_ends(text: str) -> Iterator[str]:
    """What is still to be closed in a piece of JSON that ends inside a string."""
    is_string, stack, escaped = False, [], False
    for char in text:
        if is_string:
            if escaped:
                escaped = False
            elif char == "\\":
                escaped = True
            elif char == '"':
                is_string = False
        elif char == '"':
            is_string = True
        elif char in "{[":
            stack.append("}" if char == "{" else "]")
        elif char in "}]":
            stack.pop()
    yield from stack
    if is_string:
        yield _inner_end(text)


def _inner_end(text: str) -> str:
    """What ends a string, and the JSON in it if it holds some."""
    start = max(text.rfind(':"'), text.rfind(',"')) + 2
    inner = json.loads(f'"{text[start:]}"')
    if not inner.startswith(("{", "[")):
        return '"'
    return json.dumps("".join(reversed(list(_open_ends(inner)))))[1:-1] + '"'


def _requests_first(recorded: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """The lines with Reverb's requests, written down with the answers, before what they caused."""
    ordered: list[dict[str, Any]] = []
    for line in recorded:
        place = len(ordered)
        if line["dir"] == "http":
            began = line["t_ms"] - line["ms"] - 1
            while (
                place
                and ordered[place - 1]["dir"] in ("in", "close")
                and (ordered[place - 1]["t_ms"] >= began)
            ):
                place -= 1
        ordered.insert(place, line)
    return ordered


def _short(text: str) -> str:
    """What was done, in a line: without signatures, and cut."""
    text = re.sub(r"\b[0-9a-fA-F]{64}\b", "…", text)
    return text if len(text) <= 160 else f"{text[:160]}…"


def _shown(data: Any) -> str:
    text = json.dumps(data, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    return text


def _answer(status: int, body: bytes) -> str:
    """What is compared of an answer: its status and, if it was granted, its body."""
    if status >= 400:
        # Whoever is refused is told why. What follows answers what was no request.
        assert not body or json.JSONDecoder().raw_decode(body.decode())[0]["error"]
        return str(status)
    return f"{status} {_shown(json.loads(body))}" if body else str(status)


def _reverb_answer(line: dict[str, Any]) -> str:
    status = int(line["status"].split()[1])
    return str(status) if status >= 400 else f"{status} {_shown(json.loads(line['res_body']))}"


def _soketi_answer(later: Sequence[dict[str, Any]]) -> str:
    for line in later:
        if line["dir"] == "http_req" or (
            line["dir"] == "error" and line["text"].startswith("no HTTP")
        ):
            return "no answer"
        if line["dir"] == "http_res":
            status, body = int(line["status"].split()[0]), line["body"]
            try:
                data = json.loads(body)
            except ValueError:
                return str(status) if status >= 400 else f"{status} {body}".strip()
            status = data.get("code", status)
            return str(status) if status >= 400 else f"{status} {_shown(_without_ok(data))}"
    return "no answer"


def _without_ok(data: Any) -> Any:
    return {} if data == {"ok": True} else data


def _recorded_id(conn: str, later: Sequence[dict[str, Any]]) -> str:
    for line in later:
        text = line.get("raw") or line.get("text") or ""
        if line.get("conn") == conn and "connection_established" in text:
            return str(json.loads(json.loads(text)["data"])["socket_id"])
        if line.get("conn") == conn and line["dir"] in ("connect", "close"):
            break
    return ""


def _recorded_at(recorded: Sequence[dict[str, Any]]) -> int:
    """The time of the first answer, by its Date."""
    for line in recorded:
        headers = line.get("res_headers") or line.get("headers") or {}
        fields = (
            headers
            if isinstance(headers, dict)
            else dict(field.split(":", 1) for field in headers if ":" in field)
        )
        if fields.get("Date"):
            return int(parsedate_to_datetime(fields["Date"].strip()).timestamp())
    return 0


def _signature(key: str, secret: str, socket_id: str, data: dict[str, Any]) -> str:
    if "user_data" in data:
        auth = user_auth(key, secret, socket_id, str(data["user_data"]))
    else:
        channel = str(data.get("channel"))
        auth = channel_auth(key, secret, socket_id, channel, data.get("channel_data"))
    return auth.rpartition(":")[2]


def _signed(secret: str, method: str, path: str, query: Sequence[tuple[str, str]]) -> str:
    pairs = sorted((name.lower(), value) for name, value in query if name != "auth_signature")
    text = f"{method}\n{path}\n" + "&".join(f"{name}={value}" for name, value in pairs)
    return hmac.new(secret.encode(), text.encode(), hashlib.sha256).hexdigest()


async def http(port: int, request: bytes) -> tuple[int, bytes]:
    """Send a request that asks for the connection to be closed; the answer's status and body."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    try:
        writer.write(request)
        async with asyncio.timeout(TIMEOUT):
            head, _, body = (await reader.read()).partition(b"\r\n\r\n")
        return int(head.split(b" ", 2)[1]), body
    finally:
        writer.close()
        with contextlib.suppress(OSError):
            await writer.wait_closed()
