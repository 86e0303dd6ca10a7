"""`python -m antiphon` is the `antiphon` command."""

from .cli import run

run()
