"""What Prometheus reads, and who may read it."""

from __future__ import annotations

import asyncio
import itertools
from pathlib import Path

import msgspec
import pytest
import pytest_asyncio
from prometheus_client.parser import text_string_to_metric_families

from antiphon.publisher import BatchEvent, Publisher
from antiphon.server import Server
from antiphon.server.hub import Hub
from antiphon.server.metrics import BUCKETS, Siblings, Traffic, exposition
from antiphon.settings import App, WebhookEndpoint
from tests.conftest import Connect

from .wire import Wire, http, until

pytestmark = pytest.mark.asyncio(loop_scope="module")

TOKEN = "metrics-token"
APP = App(id="1", key="k", secret="s")


@pytest_asyncio.fixture(loop_scope="module")
async def metered() -> Server:
    return Server((APP, App(id="2", key="k2", secret="s2")), metrics_token=TOKEN)


async def read(server: Server, token: str = TOKEN) -> tuple[int, str]:
    head = f"GET /metrics HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {token}\r\n\r\n"
    status, body = await http(server.port, head.encode())
    return status, body.decode()


async def values(server: Server) -> dict[str, float]:
    """The first application's samples and the process's, by name."""
    status, text = await read(server)
    assert status == 200
    return {
        sample.name + (f":{sample.labels['le']}" if "le" in sample.labels else ""): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
        if sample.labels.get("app", "1") == "1"
    }


# Who may read it


async def test_without_a_token_there_are_no_metrics(server: Server) -> None:
    assert (await read(server, ""))[0] == 404
    assert (await read(server, "None"))[0] == 404


@pytest.mark.parametrize(
    "header",
    [
        b"",
        b"Authorization: Bearer\r\n",
        b"Authorization: Bearer metrics-toke\r\n",
        b"Authorization: Bearer metrics-token2\r\n",
        b"Authorization: Basic metrics-token\r\n",
        b"Authorization: metrics-token\r\n",
        b"Authorization: Bearer \xff\xfe\r\n",
    ],
)
async def test_who_does_not_know_the_token_is_refused(metered: Server, header: bytes) -> None:
    async with metered:
        request = b"GET /metrics HTTP/1.1\r\nHost: x\r\n" + header + b"\r\n"
        status, body = await http(metered.port, request)
    assert (status, body) == (401, b'{"error":"The metrics token is missing or wrong"}')


async def test_who_knows_the_token_reads_the_text_format(metered: Server) -> None:
    async with metered:
        reader, writer = await asyncio.open_connection("127.0.0.1", metered.port)
        writer.write(
            b"GET /metrics HTTP/1.0\r\nHost: x\r\nauthorization: bearer  metrics-token\r\n\r\n"
        )
        answer = await reader.read()
        writer.close()
        await writer.wait_closed()
    head, _, text = answer.partition(b"\r\n\r\n")
    assert b"\r\ncontent-type: text/plain; version=0.0.4; charset=utf-8\r\n" in head
    lines = text.decode().split("\n")
    assert lines[-1] == ""
    assert lines[:3] == [
        "# HELP antiphon_connections Open WebSocket connections.",
        "# TYPE antiphon_connections gauge",
        'antiphon_connections{app="1"} 0',
    ]


# What it says


async def test_what_comes_and_goes_is_counted(metered: Server, connect: Connect) -> None:
    async with metered:
        ali, eve = await connect(metered), await connect(metered)
        await connect(metered, "/app/k2")
        for wire in (ali, eve):
            await wire.subscribe("news")
        await eve.join("private-room")
        before = await values(metered)
        assert before["antiphon_connections"] == before["antiphon_connections_total"] == 2
        assert before["antiphon_channels"] == 2
        assert before["antiphon_subscriptions"] == 3
        assert before["antiphon_messages_received_total"] == 3
        async with Publisher(metered.settings()) as publisher:
            await publisher.trigger("news", "e", "x" * 100)
            await publisher.trigger("news", "e", "x", socket_id=ali.socket_id)
            batch = [BatchEvent(channel=name, name="e", data="x") for name in ("news", "nobody")]
            await publisher.trigger_batch(batch)
        for wire, count in ((ali, 2), (eve, 3)):
            for _ in range(count):
                await wire.event("e")
        after = await values(metered)
        assert after["antiphon_messages_sent_total"] - before["antiphon_messages_sent_total"] == 5
        assert after["antiphon_events_published_total"] == 4
        assert after["antiphon_publish_seconds_count"] == 3, "as many requests"
        assert after["antiphon_publish_seconds_bucket:+Inf"] == 3
        assert 0 < after["antiphon_publish_seconds_sum"] < 60
        await ali.hang_up()
        await until(lambda: len(metered._hubs["k"].sockets) == 1)
        gone = await values(metered)
    assert (gone["antiphon_connections"], gone["antiphon_connections_total"]) == (1, 2)
    assert gone["antiphon_subscriptions"] == 2


async def test_bytes_are_those_of_the_messages(metered: Server, connect: Connect) -> None:
    async with metered:
        wire = await connect(metered)
        before = await values(metered)
        wire.send_text('{"event":"pusher:ping"}')
        await wire.event("pusher:pong")
        after = await values(metered)
    assert after["antiphon_received_bytes_total"] - before["antiphon_received_bytes_total"] == 23
    sent = after["antiphon_sent_bytes_total"] - before["antiphon_sent_bytes_total"]
    assert sent == 2 + len('{"event":"pusher:pong","data":{}}')


async def test_two_channels_in_one_turn_are_counted_once_for_each_delivery(
    metered: Server, connect: Connect
) -> None:
    async with metered:
        both, one = await connect(metered), await connect(metered)
        await both.subscribe("a")
        await both.subscribe("b")
        await one.subscribe("b")
        before = await values(metered)
        hub = metered._hubs["k"]
        hub.trigger("a", "e", "1")
        hub.trigger("b", "e", "2", both.socket_id)
        hub.trigger("b", "e", "3")
        for wire in (both, one):
            for _ in range(2):
                await wire.event("e")
        after = await values(metered)
    assert after["antiphon_messages_sent_total"] - before["antiphon_messages_sent_total"] == 4
    size = sum(2 + len('{"event":"e","data":"1","channel":"a"}') for _ in range(4))
    assert after["antiphon_sent_bytes_total"] - before["antiphon_sent_bytes_total"] == size


async def test_who_does_not_read_is_counted(metered: Server) -> None:
    async with metered, await Wire.connect(metered.port, narrow=True) as wire:
        await wire.subscribe("news")
        wire.stop_reading()
        hub = metered._hubs["k"]
        while hub.sockets:
            hub.trigger("news", "e", "x" * 10_000)
            await asyncio.sleep(0)
        assert (await values(metered))["antiphon_slow_consumers_total"] == 1


async def test_who_is_refused_is_not_counted_as_connected(metered: Server) -> None:
    async with metered, await Wire.open(metered.port, query="protocol=4") as wire:
        await wire.closed()
        assert (await values(metered))["antiphon_connections_total"] == 0


async def test_the_process_tells_of_itself(metered: Server) -> None:
    async with metered:
        found = await values(metered)
    assert found["antiphon_ready"] == 1
    assert 0 <= found["antiphon_loop_lag_seconds"] < 60
    assert found["process_cpu_seconds_total"] > 0
    assert found["process_resident_memory_bytes"] > 10_000_000
    assert 5 < found["process_open_fds"] <= found["process_max_fds"]


async def test_where_proc_cannot_be_read_the_rest_is_told(
    monkeypatch: pytest.MonkeyPatch, tmp_path: object
) -> None:
    monkeypatch.setattr("antiphon.server.metrics._PROC", tmp_path)
    text = exposition([Hub(APP)], 0.25, False)
    assert "antiphon_loop_lag_seconds 0.25\n" in text
    assert "antiphon_ready 0\n" in text
    assert "process_resident_memory_bytes" not in text


async def test_an_id_may_hold_any_character() -> None:
    app = App(id='a"b\\c\nd', key="k", secret="s")
    text = exposition([Hub(app)], 0, True)
    assert 'antiphon_connections{app="a\\"b\\\\c\\nd"} 0\n' in text
    (first, *_) = text_string_to_metric_families(text)
    assert first.samples[0].labels["app"] == app.id


async def test_a_request_falls_into_the_bucket_whose_bound_it_does_not_exceed() -> None:
    traffic = Traffic()
    for seconds in (0.0, BUCKETS[0], BUCKETS[0] * 1.01, BUCKETS[-1], 60.0):
        traffic.publish(1, seconds)
    assert traffic.publish_counts == [2, 1, *[0] * (len(BUCKETS) - 3), 1, 1]


async def test_what_webhooks_do_is_told(metered: Server) -> None:
    async with metered:
        hub = metered._hubs["k"]
        endpoint = WebhookEndpoint(url="http://127.0.0.1:1/")
        app = msgspec.structs.replace(hub.app, webhooks=(endpoint,))
        await metered.change_apps([app, metered._hubs["k2"].app])
        hub.webhooks.occupied("news")
        told = await values(metered)
    assert told["antiphon_webhook_events_queued"] == 1
    assert told["antiphon_webhook_events_sent_total"] == 0
    assert told["antiphon_webhook_events_failed_total"] == 0
    assert told["antiphon_webhook_events_dropped_total"] == 0


# Several processes


async def test_whoever_is_asked_tells_what_the_others_have_told(tmp_path: Path) -> None:
    first, second = Siblings(tmp_path, 1), Siblings(tmp_path, 2)
    one = exposition([Hub(APP)], 0.25, True)
    second.tell(exposition([Hub(APP)], 0.5, True))
    merged = first.merged(one)
    assert 'antiphon_connections{worker="1",app="1"} 0\n' in merged
    assert 'antiphon_connections{worker="2",app="1"} 0\n' in merged
    assert 'antiphon_loop_lag_seconds{worker="1"} 0.25\n' in merged
    assert 'antiphon_loop_lag_seconds{worker="2"} 0.5\n' in merged
    assert 'antiphon_publish_seconds_bucket{worker="2",app="1",le="+Inf"} 0\n' in merged
    assert merged.count("# HELP ") == one.count("# HELP ")
    assert merged.count("# TYPE antiphon_connections gauge\n") == 1
    families = [line.split(" ")[2] for line in merged.splitlines() if line.startswith("# TYPE")]
    for family, then in itertools.pairwise(families):
        block = merged.partition(f"# TYPE {family} ")[2].partition(f"# HELP {then} ")[0]
        samples = block.splitlines()[1:]
        assert samples, family
        assert all(line.startswith(family) for line in samples), "a family stands together"


async def test_who_has_ended_is_told_of_no_more(tmp_path: Path) -> None:
    first, second = Siblings(tmp_path, 1), Siblings(tmp_path, 2)
    second.tell("# HELP a b\n# TYPE a gauge\na 1\n")
    second.forget()
    second.forget()
    assert 'worker="2"' not in first.merged("# HELP a b\n# TYPE a gauge\na 1\n")


async def test_an_application_s_id_may_hold_anything(tmp_path: Path) -> None:
    app = App(id='a{b="c"} 7\\"\u2028antiphon_ready\r0\x85', key="k", secret="s")
    first, second = Siblings(tmp_path, 1), Siblings(tmp_path, 2)
    second.tell(exposition([Hub(app)], 0, True))
    merged = first.merged(exposition([Hub(app)], 0, True))
    told = {family.name: family.samples for family in text_string_to_metric_families(merged)}
    labels = [sample.labels for sample in told["antiphon_connections"]]
    assert labels == [{"worker": "1", "app": app.id}, {"worker": "2", "app": app.id}]


async def test_siblings_that_cannot_be_told_or_read_end_nothing(
    tmp_path: Path, metered: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "gone"
    folder.mkdir()
    siblings = Siblings(folder, 1)
    monkeypatch.setattr("antiphon.server.server.TELL_EVERY", 0.01)
    server = Server(APP, metrics_token=TOKEN, siblings=siblings)
    async with server:
        await until(lambda: (folder / "1").exists())
        (folder / "1").unlink()
        folder.rmdir()
        status, text = await read(server)
        assert status == 200
        assert 'antiphon_connections{worker="1",app="1"} 0' in text
        folder.mkdir()
        await until(lambda: (folder / "1").exists())
