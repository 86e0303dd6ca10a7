"""What tests of programs that use antiphon need: a real server, a faulty one, and time by hand.

`PusherServer` is a real server on a free port of this machine; with pytest the fixture
`pusher_server` gives one to each test. `FaultServer` does what no real server would. `Clock` and
`Wire` drive the protocol machines without sockets and without waiting.

It needs the extra `server`; pytest is needed by nothing here.
"""

try:
    from .server import PusherServer
except ModuleNotFoundError as exc:
    if (exc.name or "").partition(".")[0] not in ("httptools", "litestar", "uvicorn"):
        raise
    raise ModuleNotFoundError(
        "antiphon.testing runs a real server and needs its packages (in a clone '.[server]'):"
        " pip install 'antiphon[server]'",
        name=exc.name,
    ) from None

from .faults import (
    ConnectionEnded,
    Dial,
    FaultServer,
    Frame,
    Script,
    answering,
    closing,
    event_text,
    frame_bytes,
    hanging_up,
    polite,
    refusing,
    silent,
)
from .wire import Clock, Wire

__all__ = [
    "Clock",
    "ConnectionEnded",
    "Dial",
    "FaultServer",
    "Frame",
    "PusherServer",
    "Script",
    "Wire",
    "answering",
    "closing",
    "event_text",
    "frame_bytes",
    "hanging_up",
    "polite",
    "refusing",
    "silent",
]
