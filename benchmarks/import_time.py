"""What `import antiphon` takes, beside `import picows`, which it cannot do without.

`python -m benchmarks.import_time`. Each import has a fresh interpreter, and is timed inside it.
"""

from __future__ import annotations

import os
import subprocess
import sys

from .measure import in_turn, table

RUNS = 11


def importing(module: str) -> list[str]:
    code = f"from time import perf_counter as t; b = t(); import {module}; print((t() - b) * 1e6)"
    return [sys.executable, "-c", code]


def main() -> None:
    # aiohttp and msgspec are there for orientation: what one would import anyway.
    modules = ("antiphon", "picows", "msgspec", "aiohttp")
    commands = {f"import {name}": importing(name) for name in modules}
    # Once for the bytecode, as after an installation: else the compiler would be measured.
    os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
    for command in commands.values():
        subprocess.run(command, check=True, capture_output=True)
    figures = in_turn(commands, runs=RUNS)
    table("Import", "microseconds", figures, "import picows", runs=RUNS)


if __name__ == "__main__":
    main()
