"""Make docs/benchmarks.md and its plots of the figures in benchmarks/results, and of nothing else.

python benchmarks/report.py
"""

from __future__ import annotations

import json
from pathlib import Path

from report_page import Results, page

ROOT = Path(__file__).parents[1]
PAGE, RESULTS = ROOT / "docs/benchmarks.md", ROOT / "benchmarks/results"


def main() -> None:
    from report_plots import draw  # matplotlib; the page itself needs none

    results = read_results()
    draw(results, PAGE.parent / "images")
    PAGE.write_text(page(results), encoding="utf-8")


def read_results() -> Results:
    """What each script wrote, by the script's name."""
    return {
        path.stem: json.loads(path.read_text(encoding="utf-8"))
        for path in sorted(RESULTS.glob("*.json"))
    }


if __name__ == "__main__":
    main()
