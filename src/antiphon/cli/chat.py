"""`antiphon chat`: the chat app, on this machine or for many, until told to stop."""

from __future__ import annotations

import asyncio
import multiprocessing
import os
import sys
from pathlib import Path

from antiphon.errors import SettingsError
from antiphon.settings import Settings

from .browser import show_in_browser

# NiceGUI and its socket library load these two wherever they are installed. Nothing here needs
# them, and they cost 18 MB: while the app is loaded, they are not to be found.
_hidden = [name for name in ("redis", "requests") if name not in sys.modules]
sys.modules.update(dict.fromkeys(_hidden))  # type: ignore[arg-type]
try:
    from antiphon.app import ChatApp
finally:
    for name in _hidden:
        del sys.modules[name]

__all__ = ["chat", "data_folder"]


async def chat(
    settings: Settings | None,
    *,
    host: str,
    port: int,
    public_url: str,
    data: Path,
    browser: bool,
    native: bool,
    stop: asyncio.Event,
) -> None:
    """Serve the app until told to stop, or until its window is closed.

    Args:
        settings: The server and the backend; None lets the log-in screen ask.
        host: Address to listen on.
        port: TCP port; 0 takes a free one.
        public_url: Where people reach it, if a web server stands in front.
        data: Folder for unsent messages and the last history.
        browser: Open it in the browser.
        native: Open it in a window of its own instead.
        stop: Ends it when set.

    Raises:
        SettingsError: The address or the folder cannot be used, or there is no native window.
    """
    if native:
        _check_native()
    await _check_host(host)
    app = ChatApp(settings, data_folder=data)
    async with app.serve(host, port, public_url=public_url) as served:
        here = _here(served.url)
        print(f"The chat is at {here} (Ctrl-C ends it)", flush=True)
        if public_url:
            print(f"Others reach it at {public_url}", flush=True)
        elif here != served.url:
            print(
                "Others open it by this machine's name or address; where a web server stands in"
                " front, give --public-url.",
                flush=True,
            )
        if native:
            await _window(here, stop)
        else:
            if browser:
                show_in_browser(here)
            await stop.wait()


def data_folder() -> Path:
    """Where programs of this system keep what is a user's own."""
    home = Path.home()
    if sys.platform == "win32":
        base = Path(os.environ.get("LOCALAPPDATA") or home / "AppData" / "Local")
    elif sys.platform == "darwin":
        base = home / "Library" / "Application Support"
    else:
        base = Path(os.environ.get("XDG_DATA_HOME") or home / ".local" / "share")
    return base / "antiphon"


async def _check_host(host: str) -> None:
    try:
        await asyncio.get_running_loop().getaddrinfo(host, None)
    except (OSError, UnicodeError):
        raise SettingsError(
            f"{host!r} is no address to listen on: --listen takes host:port, such as"
            " 127.0.0.1:8000."
        ) from None


def _here(url: str) -> str:
    """Where a browser on this machine opens it: 0.0.0.0 and :: stand for all addresses."""
    return url.replace("//0.0.0.0:", "//127.0.0.1:").replace("//[::]:", "//[::1]:")


def _check_native() -> None:
    try:
        import webview  # noqa: F401
    except ModuleNotFoundError:
        raise SettingsError(
            "A window of its own needs pywebview: pip install pywebview; or leave out --native."
        ) from None


async def _window(url: str, stop: asyncio.Event) -> None:
    """Show a window, in a process of its own: windows want a main thread."""
    process = multiprocessing.get_context("spawn").Process(target=_show, args=(url,), daemon=True)
    process.start()
    loop = asyncio.get_running_loop()
    loop.add_reader(process.sentinel, stop.set)
    try:
        await stop.wait()
    finally:
        loop.remove_reader(process.sentinel)
        process.terminate()
        await asyncio.to_thread(process.join)


def _show(url: str) -> None:
    import webview

    webview.create_window("antiphon", url, width=1100, height=760, min_size=(360, 480))
    webview.start()
