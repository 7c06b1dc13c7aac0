"""Write docs/benchmarks.md, docs/baselines.md and their plots from benchmarks/results alone.

python benchmarks/report.py
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

from lib.baselines_page import baselines_page
from lib.converged_results import read_comparisons
from lib.report_page import Results, benchmarks_page

ROOT = Path(__file__).parents[1]
PAGE, RESULTS = ROOT / "docs/benchmarks.md", ROOT / "benchmarks/results"
BASELINES = ROOT / "docs/baselines.md"


def main() -> None:
    argparse.ArgumentParser(description=__doc__.split("\n")[0]).parse_args()
    # These need matplotlib, unlike the pages.
    from lib.baselines_plots import draw_fronts
    from lib.report_plots import draw_plots

    results = read_results()
    draw_plots(results, PAGE.parent / "images")
    PAGE.write_text(benchmarks_page(results), encoding="utf-8")
    comparisons = read_comparisons(RESULTS)
    for comparison in comparisons:
        draw_fronts(comparison, PAGE.parent / "images")
    BASELINES.write_text(baselines_page(comparisons), encoding="utf-8")


def read_results() -> Results:
    """The results of each script, by its name."""
    return {
        path.stem: json.loads(path.read_text(encoding="utf-8"))
        for path in sorted(RESULTS.glob("*.json"))
    }


if __name__ == "__main__":
    main()
