"""How long a command takes to answer: as it is started, and as Python starts and ends programs by itself.

    python benchmarks/start.py [--pairs 5] [tasks | plan curriculum_three.yaml | ...]

Told are processor seconds, medians of pairs that take turns. Apart is what the console script does beyond `main`: it
looks less often for garbage among what is imported, and takes nothing apart at the end.
"""

from __future__ import annotations

import argparse
import os
import statistics
import subprocess
import sys

MAIN = "import sys; from dermsearch.cli.main import {0}; sys.argv[0] = 'dermsearch'; {0}()"


def seconds(name: str, words: list[str]) -> float:
    """Processor seconds of a command, by the function that answers it."""
    before = os.times()
    done = subprocess.run([sys.executable, "-c", MAIN.format(name), *words], capture_output=True, text=True)
    after = os.times()
    if done.returncode:
        sys.exit(done.stderr)
    return after.children_user + after.children_system - before.children_user - before.children_system


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pairs", type=int, default=5)
    given, words = parser.parse_known_args()
    words = words or ["tasks"]
    pairs = [(seconds("program", words), seconds("main", words)) for _ in range(given.pairs)]
    ours, plain = (statistics.median(times) for times in zip(*pairs, strict=True))
    share = statistics.median(a / b for a, b in pairs)
    print(f"dermsearch {' '.join(words)}: {ours:.2f} s of a processor, {plain:.2f} s without; ratio {share:.2f}")


if __name__ == "__main__":
    main()
