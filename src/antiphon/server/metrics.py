"""What Prometheus reads: counters that cost an addition each, and their text.

Text format 0.0.4: https://prometheus.io/docs/instrumenting/exposition_formats/
"""

from __future__ import annotations

import contextlib
import os
import time
from bisect import bisect_left
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from .hub import Broker, Hub

__all__ = ["CONTENT_TYPE", "Siblings", "Traffic", "exposition"]

CONTENT_TYPE: Final = "text/plain; version=0.0.4"
BUCKETS: Final = (0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.1, 0.5)
"""Upper bounds of the publish histogram, in seconds."""
_PROC: Final = Path("/proc/self")


class Traffic:
    """What one application has received and sent since the server was made.

    Attributes:
        connections: WebSocket connections that were opened.
        received: Messages from clients.
        received_bytes: Bytes of these, without frame heads.
        sent: Messages to clients: an event to 1 000 subscribers is 1 000.
        sent_bytes: Bytes of these, with frame heads.
        slow: Connections closed with 4100, because they did not read.
        refused: Connections that were not let in: disabled, origin, quota, address, version.
        published: Events published over HTTP.
        publish_counts: Requests that have published, by time: one for each bound in `BUCKETS`,
            and one for the rest.
        publish_sum: Seconds of all these.
    """

    __slots__ = (
        "connections",
        "publish_counts",
        "publish_sum",
        "published",
        "received",
        "received_bytes",
        "refused",
        "sent",
        "sent_bytes",
        "slow",
    )

    def __init__(self) -> None:
        self.connections = self.received = self.received_bytes = 0
        self.sent = self.sent_bytes = self.slow = self.published = self.refused = 0
        self.publish_counts = [0] * (len(BUCKETS) + 1)
        self.publish_sum = 0.0

    def fan_out(self, receivers: int, messages: int, size: int) -> None:
        """Count messages that are written to several connections at once.

        Args:
            receivers: How many connections.
            messages: How many messages each of them gets.
            size: Bytes of these, with frame heads.
        """
        self.sent += receivers * messages
        self.sent_bytes += receivers * size

    def publish(self, events: int, seconds: float) -> None:
        """Count a request that has published events.

        Args:
            events: How many.
            seconds: How long the server was busy with it.
        """
        self.published += events
        self.publish_counts[bisect_left(BUCKETS, seconds)] += 1
        self.publish_sum += seconds


_BY_APP: Final = {
    "connections": ("gauge", "Open WebSocket connections."),
    "channels": ("gauge", "Occupied channels."),
    "subscriptions": ("gauge", "Connections in channels, each counted in every channel it is in."),
    "connections_total": ("counter", "WebSocket connections opened."),
    "messages_received_total": ("counter", "Messages from clients."),
    "received_bytes_total": ("counter", "Bytes of messages from clients."),
    "messages_sent_total": ("counter", "Messages to clients, one for each that gets it."),
    "sent_bytes_total": ("counter", "Bytes of messages to clients."),
    "events_published_total": ("counter", "Events published over HTTP."),
    "slow_consumers_total": ("counter", "Connections closed with 4100: they did not read."),
    "refused_total": ("counter", "Connections not let in: origin, quota, address, disabled."),
    "webhook_events_queued": ("gauge", "Webhook events that wait for their endpoint."),
    "webhook_events_sent_total": ("counter", "Webhook events that an endpoint has taken."),
    "webhook_events_failed_total": ("counter", "Webhook events given up after five minutes."),
    "webhook_events_dropped_total": ("counter", "Webhook events for which there was no room."),
}
_BY_CLUSTER: Final = {
    "cluster_live": ("gauge", "1 while the nodes know of each other, 0 while Redis is away."),
    "cluster_connections": ("gauge", "Open connections on all nodes, as of 2 seconds ago."),
    "cluster_events_waiting": ("gauge", "Events that the other nodes are to be told yet."),
    "cluster_events_dropped_total": ("counter", "Events for which there was no room to wait."),
    "cluster_lost_total": ("counter", "How often Redis was lost."),
}


def _of(hub: Hub) -> tuple[int, ...]:
    """The values of `_BY_APP` for one application."""
    traffic = hub.traffic
    return (
        len(hub.sockets),
        len(hub.channels),
        sum(len(channel.subscribers) for channel in hub.channels.values()),
        traffic.connections,
        traffic.received,
        traffic.received_bytes,
        traffic.sent,
        traffic.sent_bytes,
        traffic.published,
        traffic.slow,
        traffic.refused,
        hub.webhooks.queued,
        hub.webhooks.sent,
        hub.webhooks.failed,
        hub.webhooks.dropped,
    )


def _of_cluster(hub: Hub, broker: Broker) -> tuple[int, ...]:
    """The values of `_BY_CLUSTER` for one application."""
    everywhere = len(hub.sockets) + broker.elsewhere
    return int(broker.is_live), everywhere, broker.waiting, broker.dropped, broker.lost


def exposition(hubs: Iterable[Hub], lag: float, ready: bool, unread: int = 0) -> str:
    """All metrics as text.

    Args:
        hubs: The applications.
        lag: Seconds by which the event loop is late.
        ready: Whether connections are accepted.
        unread: Bytes that wait for slow readers.
    """
    apps = {_escaped(hub.app.id): hub for hub in hubs}
    lines = _by_app(_BY_APP, {app: _of(hub) for app, hub in apps.items()})
    nodes = {app: _of_cluster(h, h.broker) for app, h in apps.items() if h.broker is not None}
    if nodes:
        lines += _by_app(_BY_CLUSTER, nodes)
    name = "antiphon_publish_seconds"
    lines += _head(name, "histogram", "Time the server is busy with a request that publishes.")
    for app, hub in apps.items():
        lines += _histogram(name, app, hub.traffic)
    for name, (kind, help_, value) in _of_the_process(lag, ready, unread).items():
        lines += [*_head(name, kind, help_), f"{name} {value}"]
    return "\n".join(lines) + "\n"


def _by_app(
    described: Mapping[str, tuple[str, str]], apps: Mapping[str, tuple[int, ...]]
) -> list[str]:
    """Metrics with one value for each application."""
    lines: list[str] = []
    for place, (name, (kind, help_)) in enumerate(described.items()):
        lines += _head(f"antiphon_{name}", kind, help_)
        lines += [f'antiphon_{name}{{app="{app}"}} {of[place]}' for app, of in apps.items()]
    return lines


def _histogram(name: str, app: str, traffic: Traffic) -> Iterable[str]:
    count = 0
    for bound, more in zip((*BUCKETS, "+Inf"), traffic.publish_counts, strict=True):
        count += more
        yield f'{name}_bucket{{app="{app}",le="{bound}"}} {count}'
    yield f'{name}_sum{{app="{app}"}} {traffic.publish_sum}'
    yield f'{name}_count{{app="{app}"}} {count}'


def _of_the_process(lag: float, ready: bool, unread: int) -> Mapping[str, tuple[str, str, float]]:
    """Metrics that no application has to itself, by name: kind, help and value."""
    found: dict[str, tuple[str, str, float]] = {
        "antiphon_ready": ("gauge", "1 while connections are accepted.", int(ready)),
        "antiphon_unread_bytes": ("gauge", "What waits for slow readers, up to 64 MiB.", unread),
        "antiphon_loop_lag_seconds": ("gauge", "How late the event loop's last tick was.", lag),
        "process_cpu_seconds_total": ("counter", "CPU time, user and system.", time.process_time()),
    }
    try:
        pages = int((_PROC / "statm").read_text().split()[1])
        # Linux 6.2 knows their number; where it must be counted, many cost milliseconds.
        files = os.stat(_PROC / "fd").st_size or len(os.listdir(_PROC / "fd"))
    except OSError:  # no /proc, or no descriptor left to read it with
        return found
    import resource  # there is none on Windows

    memory = pages * os.sysconf("SC_PAGE_SIZE")
    found["process_resident_memory_bytes"] = ("gauge", "Resident memory.", memory)
    found["process_open_fds"] = ("gauge", "Open file descriptors.", files)
    limit, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    found["process_max_fds"] = ("gauge", "As many may be open.", limit)
    return found


class Siblings:
    """The metrics of several processes that serve one address: whoever is asked tells all.

    Each writes its own into a folder now and then, and reads the others' there.

    Args:
        folder: The folder, which they share.
        number: Which of them this is.
    """

    def __init__(self, folder: Path, number: int) -> None:
        self._folder = folder
        self._number = number

    def tell(self, text: str) -> None:
        """Let the others know this one's metrics.

        Raises:
            OSError: They cannot be written.
        """
        unfinished = self._folder / f"{self._number}.new"
        unfinished.write_text(text, encoding="utf-8", newline="")
        unfinished.replace(self._folder / str(self._number))

    def forget(self) -> None:
        """It has ended."""
        (self._folder / str(self._number)).unlink(missing_ok=True)

    def merged(self, own: str) -> str:
        """This one's metrics and what the others have told, each with a label `worker`."""
        texts = {self._number: own}
        with contextlib.suppress(OSError):  # the folder is gone: then it is alone
            for file in list(self._folder.iterdir()):
                if file.name.isdigit() and int(file.name) != self._number:
                    with contextlib.suppress(FileNotFoundError):  # it has just ended
                        texts[int(file.name)] = file.read_bytes().decode()
        heads: dict[str, list[str]] = {}
        samples: dict[str, list[str]] = {}
        for number, text in sorted(texts.items()):
            name = ""
            for line in text.removesuffix("\n").split("\n"):  # an id may hold any other break
                if line.startswith("# HELP "):
                    name = line.split(" ", 3)[2]
                    heads[name] = [line]
                elif line.startswith("# TYPE "):
                    heads[name].append(line)
                else:
                    samples.setdefault(name, []).append(_labelled(line, f'worker="{number}"'))
        return "".join(f"{line}\n" for n in heads for line in heads[n] + samples.get(n, []))


def _labelled(sample: str, label: str) -> str:
    """A sample with one more label; a value holds no space, and a name no brace."""
    metric, _, value = sample.rpartition(" ")
    name, brace, labels = metric.partition("{")
    return f"{name}{{{label},{labels} {value}" if brace else f"{name}{{{label}}} {value}"


def _head(name: str, kind: str, help_: str) -> list[str]:
    return [f"# HELP {name} {help_}", f"# TYPE {name} {kind}"]


def _escaped(text: str) -> str:
    return text.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")
