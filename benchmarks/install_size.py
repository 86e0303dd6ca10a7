"""What the SDK without extras puts into a fresh virtual environment, in bytes.

`python -m benchmarks.install_size`. It needs a package index: pip resolves as for any user.
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
import venv
from pathlib import Path

ROOT = Path(__file__).parents[1]
LARGEST = 8
NOT_OURS = ("pip", "setuptools", "pkg_resources", "_distutils_hack", "distutils-precedence.pth")


def size(path: Path) -> int:
    if path.is_file():
        return path.stat().st_size
    return sum(file.stat().st_size for file in path.rglob("*") if file.is_file())


def main() -> None:
    with tempfile.TemporaryDirectory() as place:
        venv.create(place, with_pip=True)
        pip = [str(Path(place) / "bin" / "python"), "-m", "pip", "install", "-qq"]
        subprocess.run([*pip, "--no-compile", "--disable-pip-version-check", str(ROOT)], check=True)
        packages = next((Path(place) / "lib").glob("python*/site-packages"))
        sizes = {
            entry.name: size(entry)
            for entry in packages.iterdir()
            if not entry.name.startswith(NOT_OURS)
        }
    print(f"\nInstalled: {sum(sizes.values()):,} bytes with Python {sys.version.split()[0]}")
    for name in sorted(sizes, key=lambda name: -sizes[name])[:LARGEST]:
        print(f"  {name:<28} {sizes[name]:>12,}")


if __name__ == "__main__":
    main()
