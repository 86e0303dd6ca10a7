"""`python -m benchmarks [name …]`: run the benchmarks one after the other."""

import importlib
import sys

NAMES = ("client_receive", "server_fanout", "server_memory")

for name in sys.argv[1:] or NAMES:
    if name not in NAMES:
        sys.exit(f"No benchmark {name!r}; there are {', '.join(NAMES)}.")
    importlib.import_module(f"benchmarks.{name}").main()
