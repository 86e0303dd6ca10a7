"""Repeating a measurement in processes of its own, and printing medians side by side."""

from __future__ import annotations

import json
import statistics
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence

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


def rounds(
    measures: Mapping[str, Callable[[], Mapping[str, float]]], runs: int = RUNS
) -> dict[str, dict[str, list[float]]]:
    """Call each measure `runs` times, A B C A B C …; for each figure the values by measure."""
    figures: dict[str, dict[str, list[float]]] = {}
    for _ in range(runs):
        for name, measure in measures.items():
            for figure, value in measure().items():
                figures.setdefault(figure, {}).setdefault(name, []).append(value)
    return figures


def asked(
    what: str,
    values: Sequence[float],
    *,
    at_least: float | None = None,
    at_most: float | None = None,
) -> None:
    """Print the median beside the bound that it has to keep."""
    value = statistics.median(values)
    holds = (at_least is None or value >= at_least) and (at_most is None or value <= at_most)
    bound = f"≥ {at_least:,}" if at_least is not None else f"≤ {at_most:,}"
    print(f"  asked: {what} {bound}; is {_number(value)}: {'holds' if holds else 'FALLS SHORT'}")


def ratios(values: Sequence[float], base: Sequence[float]) -> list[float]:
    """Each value as a multiple of the base's in the same run."""
    return [a / b for a, b in zip(values, base, strict=True)]


def table(
    title: str,
    unit: str,
    figures: Mapping[str, Sequence[float]],
    *bases: str,
    runs: int = RUNS,
) -> None:
    """Print the median, the range, and for each base the median of the ratios, run by run."""
    beside = "".join(f", × {base}" for base in bases) + (" run by run" if bases else "")
    print(f"\n{title} ({unit}; median of {runs}, min-max{beside})")
    for name, values in figures.items():
        multiples = "".join(
            f"   × {statistics.median(ratios(values, figures[base])):5.2f}" for base in bases
        )
        print(
            f"  {name:<28} {_number(statistics.median(values)):>12}"
            f"   {_number(min(values)):>12} - {_number(max(values)):>12}{multiples}"
        )


def _number(value: float) -> str:
    """Whole where it is large, with two decimals where it is not."""
    return f"{value:,.0f}" if value >= 100 else f"{value:.2f}"


def python(module: str, *arguments: object) -> list[str]:
    """The command that runs a module of this folder."""
    return [sys.executable, "-m", f"benchmarks.{module}", *map(str, arguments)]
