"""The fixtures as users meet them: pytest in a process of its own, on a project of a few lines."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

pytest_plugins = ["pytester"]

GUIDE = Path(__file__).parents[2] / "docs" / "testing.md"

PLAIN = """
    import asyncio
    from antiphon import Client

    def test_a_plain_test_publishes(pusher_server):
        pusher_server.trigger("orders", "OrderShipped", {"id": 5})
        assert pusher_server.connections == []

    def test_a_plain_test_runs_a_loop_of_its_own(pusher_server):
        async def main():
            async with Client(pusher_server.settings) as client:
                await client.subscribe("orders").subscribed()
                assert pusher_server.channels == {"orders": [client.socket_id]}
        asyncio.run(main())

    def test_each_test_has_its_own(pusher_server):
        assert pusher_server.channels == {}
"""

ASYNCHRONOUS = """
    import asyncio
    import pytest
    from antiphon import Client

    MARK

    async def test_an_event_arrives(pusher_server):
        async with Client(pusher_server.settings) as client:
            orders = client.subscribe("orders")
            await orders.subscribed()
            stream = orders.stream("OrderShipped")
            pusher_server.trigger("orders", "OrderShipped", {"id": 5})
            async with asyncio.timeout(30):
                async for event in stream:
                    assert event.data == {"id": 5}
                    break
"""


NO_ASYNCIO = ("-p", "no:asyncio")
ASYNCIO = ("-o", "asyncio_default_fixture_loop_scope=function")  # unset, it is a warning


def run(pytester: pytest.Pytester, *arguments: str) -> pytest.RunResult:
    pytester.makeini("[pytest]\nfilterwarnings = error\n")
    slow_and_not_ours = ("-p", "no:faker", "-p", "no:hypothesispytest")
    return pytester.runpytest_subprocess(*slow_and_not_ours, *arguments, timeout=240)


def test_plain_tests_need_no_asynchronous_plugin(pytester: pytest.Pytester) -> None:
    pytester.makepyfile(PLAIN)
    run(pytester, *NO_ASYNCIO, "-p", "no:anyio").assert_outcomes(passed=3)


def test_plain_and_asynchronous_tests_share_a_project_under_pytest_asyncio(
    pytester: pytest.Pytester,
) -> None:
    pytester.makepyfile(
        test_plain=PLAIN,
        test_asynchronous=ASYNCHRONOUS.replace("MARK", "pytestmark = pytest.mark.asyncio"),
    )
    run(pytester, *ASYNCIO, "-p", "no:anyio").assert_outcomes(passed=4)
    run(pytester, *ASYNCIO, "-p", "no:anyio", "--asyncio-mode=auto").assert_outcomes(passed=4)


def test_asynchronous_tests_run_under_anyio_alone(pytester: pytest.Pytester) -> None:
    pytester.makepyfile(ASYNCHRONOUS.replace("MARK", "pytestmark = pytest.mark.anyio"))
    pytester.makeconftest(
        "import pytest\n\n@pytest.fixture\ndef anyio_backend():\n    return 'asyncio'\n"
    )
    run(pytester, *NO_ASYNCIO).assert_outcomes(passed=1)


def test_the_application_can_be_given_limits(pytester: pytest.Pytester) -> None:
    pytester.makepyfile("""
        import pytest
        from antiphon import App

        @pytest.fixture
        def pusher_app():
            return App(id="9", key="mine", secret="s", max_event_size=10)

        def test_it_is_served(pusher_server):
            assert pusher_server.app.max_event_size == 10
            assert pusher_server.settings.app_key == "mine"
    """)
    run(pytester, *NO_ASYNCIO).assert_outcomes(passed=1)


def test_a_client_that_a_test_has_forgotten_fails_no_later_test(pytester: pytest.Pytester) -> None:
    pytester.makepyfile("""
        import socket

        def test_it_is_left_open(pusher_server):
            global forgotten
            forgotten = socket.create_connection(("127.0.0.1", pusher_server.port))

        def test_the_next(pusher_server):
            pusher_server.trigger("orders", "OrderShipped")
            forgotten.close()
    """)
    run(pytester, *NO_ASYNCIO).assert_outcomes(passed=2)


def test_a_failing_test_is_one_failure(pytester: pytest.Pytester) -> None:
    pytester.makepyfile("def test_it(pusher_server):\n    assert pusher_server.channels == 1\n")
    run(pytester, *NO_ASYNCIO).assert_outcomes(failed=1)


def test_who_uses_no_fixture_loads_nothing(pytester: pytest.Pytester) -> None:
    pytester.makepyfile("def test_it():\n    pass\n")
    pytester.makeconftest("""
        import sys

        def pytest_unconfigure():
            print("loaded:", *sys.modules)
    """)
    result = run(pytester, *NO_ASYNCIO, "-p", "no:anyio")
    result.assert_outcomes(passed=1)
    (line,) = [line for line in result.outlines if line.startswith("loaded:")]
    loaded = set(line.split())
    assert "pytest_antiphon" in loaded
    tops = {name.partition(".")[0] for name in loaded}
    assert tops & {"antiphon", "aiohttp", "litestar", "msgspec", "picows", "uvicorn"} == set()


def test_the_fixtures_are_listed_with_what_they_are(pytester: pytest.Pytester) -> None:
    result = run(pytester, *NO_ASYNCIO, "--fixtures")
    result.stdout.fnmatch_lines(
        ["pusher_app*", "*override it*", "pusher_server*", "*for one test*"]
    )


# The package without pytest, and without the server's packages


def python(program: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-W", "error", "-c", program], capture_output=True, text=True, check=False
    )


def test_the_package_needs_no_pytest() -> None:
    done = python("import sys\nsys.modules['pytest'] = None\nimport antiphon.testing\nprint('ok')")
    assert (done.returncode, done.stdout, done.stderr) == (0, "ok\n", "")


@pytest.mark.parametrize("missing", ["httptools", "litestar", "uvicorn"])
def test_a_missing_package_is_named_by_the_extra_that_brings_it(missing: str) -> None:
    done = python(f"import sys\nsys.modules['{missing}'] = None\nimport antiphon.testing")
    assert done.returncode == 1
    assert done.stderr.splitlines()[-1] == (
        "ModuleNotFoundError: antiphon.testing runs a real server and needs its packages"
        " (in a clone '.[server]'): pip install 'antiphon[server]'"
    )


# The guide


def test_every_example_of_the_guide_is_a_test_that_passes(pytester: pytest.Pytester) -> None:
    examples = re.findall(r"```python\n(.*?)```", GUIDE.read_text(encoding="utf-8"), re.DOTALL)
    assert len(examples) > 5
    for number, example in enumerate(examples):
        pytester.path.joinpath(f"test_example_{number}.py").write_text(example, encoding="utf-8")
    result = run(pytester, *ASYNCIO, "--asyncio-mode=auto")
    outcomes = result.parseoutcomes()
    assert set(outcomes) == {"passed"}
    assert outcomes["passed"] >= len(examples)
