"""What everything in one client shares: its tasks, and who watches."""

from __future__ import annotations

import asyncio
import logging
from typing import Any

import pytest

from antiphon.client.host import Host
from antiphon.errors import ConnectionLost, HandlerFailed, ServerReportedError
from antiphon.protocol.frames import Event
from tests.server.wire import until

from .linked import soon

EVENT = Event(name="e")


# Watching


def test_everybody_who_watches_is_told_in_order() -> None:
    host, seen = Host(), list[tuple[str, Any]]()
    host.observe(lambda o: seen.append(("one", o)))
    host.observe(lambda o: seen.append(("other", o)))
    host.tell(EVENT)
    assert seen == [("one", EVENT), ("other", EVENT)]


def test_who_watches_may_stop_and_others_may_begin_while_they_are_told() -> None:
    host, seen = Host(), list[str]()

    def once(_: Any) -> None:
        seen.append("once")
        stop()
        host.observe(lambda o: seen.append("new"))

    stop = host.observe(once)
    host.observe(lambda o: seen.append("always"))
    host.tell(EVENT)
    assert seen == ["once", "always"]
    host.tell(EVENT)
    assert seen == ["once", "always", "always", "new"]
    stop()  # twice does no harm


def test_who_raises_is_logged_and_the_others_are_told(caplog: pytest.LogCaptureFixture) -> None:
    host, seen = Host(), list[Any]()

    def bad(_: Any) -> None:
        raise ZeroDivisionError

    host.observe(bad)
    host.observe(seen.append)
    host.tell(EVENT)
    assert seen == [EVENT]
    (record,) = caplog.records
    assert record.getMessage() == "an observer raised"
    assert record.exc_info is not None


def test_an_error_is_told_and_logged_with_its_kind(caplog: pytest.LogCaptureFixture) -> None:
    host, seen = Host(), list[Any]()
    host.observe(seen.append)
    error = ConnectionLost("The line is dead.")
    error.__cause__ = OSError("http://u:s3cret@x")
    host.report(error)
    assert seen == [error]
    (record,) = caplog.records
    assert record.levelno == logging.WARNING
    assert record.getMessage() == "ConnectionLost: The line is dead."
    assert not record.exc_info, "what caused it may hold a secret, and the text says all"


def test_what_a_server_reports_is_no_warning(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    Host().report(ServerReportedError("Slower, please.", code=4200))
    assert [record.levelno for record in caplog.records] == [logging.INFO]


def test_a_handlers_error_is_logged_with_its_traceback(caplog: pytest.LogCaptureFixture) -> None:
    error = HandlerFailed("A handler raised.")
    error.__cause__ = ZeroDivisionError()
    Host().report(error)
    (record,) = caplog.records
    assert record.exc_info is not None
    assert record.exc_info[1] is error.__cause__


# Tasks


async def test_a_task_ends_with_its_host() -> None:
    host = Host()
    ended = asyncio.Event()

    async def work() -> None:
        try:
            await asyncio.Event().wait()
        finally:
            ended.set()

    host.spawn(work(), "antiphon work")
    await asyncio.sleep(0)
    await soon(host.close())
    assert ended.is_set()
    assert host.tasks == set()


async def test_a_task_can_be_ended_earlier() -> None:
    host = Host()
    end = host.spawn(asyncio.Event().wait(), "antiphon work")  # type: ignore[arg-type]
    await asyncio.sleep(0)
    end()
    await until(lambda: not host.tasks)
    end()


async def test_a_task_that_ends_itself_goes_on_to_its_end() -> None:
    host, said = Host(), list[str]()

    async def work() -> None:
        end()
        await asyncio.sleep(0)
        said.append("done")

    end = host.spawn(work(), "antiphon work")
    await until(lambda: not host.tasks)
    assert said == ["done"]


async def test_a_task_may_close_its_own_host() -> None:
    host, said = Host(), list[str]()

    async def work() -> None:
        await host.close()
        said.append("closed")

    host.spawn(work(), "antiphon work")
    other = asyncio.Event()
    host.spawn(other.wait(), "antiphon other")  # type: ignore[arg-type]
    await until(lambda: not host.tasks)
    assert said == ["closed"]


async def test_what_a_task_makes_runs_in_the_same_client_and_strangers_do_not() -> None:
    host, other = Host(), Host()
    where: list[tuple[bool, bool]] = []

    async def inner() -> None:
        where.append((host.runs_here(), other.runs_here()))

    async def work() -> None:
        await inner()
        await asyncio.create_task(inner())

    host.spawn(work(), "antiphon work")
    await until(lambda: not host.tasks)
    await inner()
    assert where == [(True, False), (True, False), (False, False)]
