"""Where the other clients live: `.venv-peers`, so that no pin of theirs touches the project's."""

from __future__ import annotations

import hashlib
import subprocess
import sys
import venv
from pathlib import Path
from typing import Final

__all__ = ["peers_python"]

ROOT: Final = Path(__file__).parents[2]
LOCK: Final = ROOT / "requirements" / "peers.lock"
PLACE: Final = ROOT / ".venv-peers"


def peers_python(*, make: bool = True) -> str:
    """The interpreter beside the other clients, made anew when the lock has changed.

    Args:
        make: Whether to make it; without, the answer is empty where there is none.
    """
    python = PLACE / "bin" / "python"
    ready = PLACE / ".ready"
    wanted = hashlib.sha256(LOCK.read_bytes()).hexdigest()
    if ready.exists() and ready.read_text() == wanted:
        return str(python)
    if not make:
        return ""
    print(f"· {PLACE.name}: new virtual environment, {LOCK.name}", file=sys.stderr)
    venv.create(PLACE, with_pip=True, clear=True)
    pip = [str(python), "-m", "pip", "install", "-qq", "--disable-pip-version-check"]
    subprocess.run([*pip, "--require-hashes", "--requirement", str(LOCK)], check=True)
    ready.write_text(wanted)
    return str(python)
