"""Repeating a measurement in processes of its own, and printing medians side by side."""

from __future__ import annotations

import json
import statistics
import subprocess
import sys
from collections.abc import Mapping, Sequence

RUNS = 5


def in_turn(commands: Mapping[str, Sequence[str]], runs: int = RUNS) -> dict[str, list[float]]:
    """Run each command `runs` times, A B C A B C …; each prints one JSON number."""
    figures: dict[str, list[float]] = {name: [] for name in commands}
    for _ in range(runs):
        for name, command in commands.items():
            done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
            if done.returncode:
                sys.exit(f"{name} failed:\n{done.stderr}")
            figures[name].append(float(json.loads(done.stdout.splitlines()[-1])))
    return figures


def table(
    title: str,
    unit: str,
    figures: Mapping[str, Sequence[float]],
    *bases: str,
    runs: int = RUNS,
) -> None:
    """Print the median, the range, and for each base the median of the ratios, run by run."""
    print(f"\n{title} ({unit}; median of {runs}, min-max, × {', × '.join(bases)} run by run)")
    for name, values in figures.items():
        ratios = "".join(f"   × {_ratio(values, figures[base]):5.2f}" for base in bases)
        print(
            f"  {name:<28} {statistics.median(values):>12,.0f}"
            f"   {min(values):>12,.0f} - {max(values):>12,.0f}{ratios}"
        )


def _ratio(values: Sequence[float], base: Sequence[float]) -> float:
    return statistics.median(a / b for a, b in zip(values, base, strict=True))


def python(module: str, *arguments: object) -> list[str]:
    """The command that runs a module of this folder."""
    return [sys.executable, "-m", f"benchmarks.{module}", *map(str, arguments)]
