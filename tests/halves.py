"""`python -m tests.halves`: all tests, in two halves side by side.

Most of them wait: for a browser, for a process, for a time-out. The first half is printed as it
goes, the second when both are over.
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
from typing import Final

# About half of the time; what is not named here is the other half.
HALF: Final = ("tests/app", "tests/backend", "tests/chat", "tests/cli")


def main() -> int:
    pytest = (sys.executable, "-m", "pytest")
    with tempfile.TemporaryFile("w+", encoding="utf-8") as said:
        others = [f"--ignore={folder}" for folder in HALF]
        with subprocess.Popen([*pytest, *others], stdout=said, stderr=said) as second:
            status = subprocess.run([*pytest, *HALF], check=False).returncode
            status = second.wait() or status
        said.seek(0)
        sys.stdout.write(said.read())
    return status


if __name__ == "__main__":
    sys.exit(main())
