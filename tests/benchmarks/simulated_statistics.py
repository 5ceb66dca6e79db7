"""Print the table of docs/simulation.md: statistics of a simulated data set beside those of Aff-Wild2.

Run: .venv/bin/python -m tests.benchmarks.simulated_statistics [SCALE] [SEED]
"""

import sys

from tasks.simulate.plan import plan_simulation
from tasks.simulate.statistics import compare_with_published


def main() -> None:
    """Print the table as Markdown."""
    scale, seed = float(sys.argv[1]) if len(sys.argv) > 1 else 1.0, int(sys.argv[2]) if len(sys.argv) > 2 else 0
    print("| statistic | published | simulated | tolerance | source |\n|---|---|---|---|---|")
    for one in compare_with_published(plan_simulation(scale, seed)):
        wanted = "-" if one.published is None else f"{one.published:,.0f}"
        got = f"{one.simulated:,.0f}" if one.published is not None else f"{one.simulated:.3g}"
        tolerance = "-" if one.published is None else f"{one.tolerance:.1%}" if one.tolerance else "equal"
        print(f"| {one.name} | {wanted} | {got} | {tolerance} | {one.source} |")


if __name__ == "__main__":
    main()
