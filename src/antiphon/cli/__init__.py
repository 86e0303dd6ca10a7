"""The command line. Its parts need the extra `cli`; without it there is one line that says so."""

from __future__ import annotations

import io
import sys

__all__ = ["run"]


def run() -> None:
    """The `antiphon` command."""
    try:
        from .main import app
    except ModuleNotFoundError as exc:
        if exc.name not in ("typer", "rich"):
            raise
        sys.exit(
            "The antiphon command needs more packages (in a clone '.[all]'):"
            " pip install 'antiphon[all]'"
        )
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):  # whatever the locale says
            stream.reconfigure(encoding="utf-8", errors="backslashreplace")
    app()
