"""Write docs/benchmarks.md and its plots from the figures in benchmarks/results alone.

python benchmarks/report.py
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

from lib.report_page import Results, benchmarks_page

ROOT = Path(__file__).parents[1]
PAGE, RESULTS = ROOT / "docs/benchmarks.md", ROOT / "benchmarks/results"


def main() -> None:
    argparse.ArgumentParser(description=__doc__.split("\n")[0]).parse_args()
    from lib.report_plots import draw_plots  # needs matplotlib, unlike the page

    results = read_results()
    draw_plots(results, PAGE.parent / "images")
    PAGE.write_text(benchmarks_page(results), encoding="utf-8")


def read_results() -> Results:
    """The results of each script, by its name."""
    return {
        path.stem: json.loads(path.read_text(encoding="utf-8"))
        for path in sorted(RESULTS.glob("*.json"))
    }


if __name__ == "__main__":
    main()
