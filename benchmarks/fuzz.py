"""Read ten thousand files of each kind that are nearly right: refused in a sentence, or read, and in good time.

    python benchmarks/fuzz.py --each 10000
    python benchmarks/fuzz.py --only studies leases --each 500 --first 0

The mutants of tests/endurance, which the tests read five hundred of; a number makes the same one again. Exit code 1 if
one of them was a traceback, no sentence, or took longer than any may.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))
from endurance.fuzz import TARGETS, tried


def main() -> None:
    """Print how many were refused and read, and every kind of finding once."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--each", type=int, default=10_000)
    parser.add_argument("--first", type=int, default=0)
    parser.add_argument("--only", nargs="*", default=list(TARGETS), choices=list(TARGETS))
    given = parser.parse_args()
    found = 0
    for name in given.only:
        began = time.perf_counter()
        with tempfile.TemporaryDirectory() as folder:
            refused, read, wrong = tried(name, Path(folder), range(given.first, given.first + given.each))
        found += len(wrong)
        seconds = time.perf_counter() - began
        print(f"{name}: {refused} refused, {read} read in {seconds:.0f} s; {len(wrong)} wrong", flush=True)
        places = Counter(each.rpartition(" at ")[2] for each in wrong)
        first = {each.rpartition(" at ")[2]: each for each in reversed(wrong)}
        for place, text in list(first.items())[:40]:
            print(f"  {places[place]:>4} x {text}", flush=True)
    sys.exit(1 if found else 0)


if __name__ == "__main__":
    main()
