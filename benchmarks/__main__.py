"""`python -m benchmarks [name …]`: run the benchmarks one after the other.

`python -m benchmarks.peers` is something else: which faults the Python clients survive.
"""

import importlib
import sys

NAMES = (
    "client_receive",
    "client_memory",
    "server_fanout",
    "server_latency",
    "server_memory",
    "server_connect",
    "server_channels",
    "import_time",
)
# Not with all the others: the one needs a Redis, the other a package index.
ON_DEMAND = ("server_nodes", "install_size")

for name in sys.argv[1:] or NAMES:
    if name not in NAMES + ON_DEMAND:
        sys.exit(f"No benchmark {name!r}; there are {', '.join(NAMES + ON_DEMAND)}.")
    importlib.import_module(f"benchmarks.{name}").main()
