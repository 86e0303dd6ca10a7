"""The steps in their order, and which of them need which."""

from __future__ import annotations

import ssl
import time
from collections.abc import AsyncGenerator, Awaitable, Callable, Sequence
from typing import TYPE_CHECKING, Final, NamedTuple

from antiphon.errors import SettingsError
from antiphon.protocol.channels import check_channel_name, needs_authorization

from .api import check_api, check_event
from .case import Case, LogIn
from .endpoint import check_auth, check_login, check_signature
from .network import check_dns, check_tcp, check_tls
from .session import check_activity, check_key, check_subscription
from .steps import Finding, Step, skipped
from .upgrade import check_upgrade

if TYPE_CHECKING:
    from antiphon.settings import Settings

__all__ = ["examine", "verdict"]

Check = Callable[[Case], Awaitable[Finding]]


class _Planned(NamedTuple):
    check: Check
    needs: tuple[str, ...]


_STEPS: Final = {
    "dns": _Planned(check_dns, ()),
    "tcp": _Planned(check_tcp, ("dns",)),
    "tls": _Planned(check_tls, ("tcp",)),
    "upgrade": _Planned(check_upgrade, ("tls",)),
    "key": _Planned(check_key, ("upgrade",)),
    "activity": _Planned(check_activity, ("key",)),
    # The endpoint is another server: it is asked even where there is no connection.
    "login": _Planned(check_login, ()),
    "auth": _Planned(check_auth, ("login",)),
    "signature": _Planned(check_signature, ("auth",)),
    "subscription": _Planned(check_subscription, ("key", "auth")),
    "api": _Planned(check_api, ("tls",)),
    "event": _Planned(check_event, ("key", "api")),
}


async def examine(
    settings: Settings,
    *,
    channel: str = "",
    token: str = "",
    log_in: LogIn | None = None,
    origin: str = "",
    timeout: float = 5.0,
    ssl_context: ssl.SSLContext | None = None,
) -> AsyncGenerator[Step, None]:
    """Find out, step by step, why a connection does not work.

    Steps that cannot work because another has failed are skipped. With `app_id` and
    `app_secret` one event is published, on a public channel with a random name.

    Args:
        settings: Where the server is; with `app_secret` signatures are compared as well.
        channel: What to subscribe to; a public channel with a random name by default.
        token: Bearer token for the auth endpoint.
        log_in: Stands in for `token`: gives one, and the user's own channel, which is subscribed
            to where no other is asked for.
        origin: The `Origin` header to connect with, as a browser would; none by default.
        timeout: Seconds to wait for any one answer.
        ssl_context: Stands in for the usual one.

    Yields:
        Each step when it is done.

    Raises:
        InvalidName: No channel can have this name.
        SettingsError: Nothing can sign the channel, or no header can carry the token or origin.
    """
    if channel:
        check_channel_name(channel)
    if needs_authorization(channel) and not (settings.auth_url or settings.app_secret):
        raise SettingsError(f"{channel} needs a signature: give --api, --auth-url or --app-secret.")
    if not (token.isprintable() and origin.isprintable()):
        raise SettingsError("The token or the origin holds characters that no header can carry.")
    case = Case(
        settings,
        channel=channel,
        token=token,
        log_in=log_in,
        origin=origin,
        timeout=timeout,
        ssl_context=ssl_context,
    )
    if settings.app_secret or settings.auth_url:
        import aiohttp  # noqa: F401 - or the first request's time would be that of loading it
    blocked: dict[str, str] = {}
    try:
        for name, (check, needs) in _STEPS.items():
            started = time.monotonic()
            reason = next((blocked[need] for need in needs if need in blocked), None)
            finding = (
                await check(case)
                if reason is None
                else skipped(f"not tried, because {reason} failed")
            )
            if reason is not None or finding.outcome == "failed":
                blocked[name] = reason or name
            yield Step(
                name=name,
                outcome=finding.outcome,
                seconds=time.monotonic() - started,
                detail=finding.detail,
                cause=finding.advice.cause,
                fix=finding.advice.fix,
            )
    finally:
        if case.session is not None:
            case.session.close()


def verdict(steps: Sequence[Step]) -> str:
    """An examination in one sentence or two."""
    failures = [step for step in steps if step.outcome == "failed"]
    warnings = [step for step in steps if step.outcome == "warning"]
    if failures:
        others = f" ({len(failures)} steps in all)" if len(failures) > 1 else ""
        return f"Not well: {failures[0].name} failed{others}. {failures[0].cause}"
    if warnings:
        return f"It works, with a warning for {warnings[0].name}. {warnings[0].cause}"
    if any(step.name == "event" and step.outcome == "ok" for step in steps):
        return (
            "All is well. If your application's own events do not arrive all the same, look at"
            " BROADCAST_CONNECTION (reverb) in its .env, and at the queue (php artisan queue:work)."
        )
    return "All is well, as far as it could be examined."
