"""What several benchmarks share: timing, baselines, exports to compare with, and the report."""
