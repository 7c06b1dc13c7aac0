"""``python -m rillet.runtime.cli``: the same as ``python -m rillet.runtime``."""

from __future__ import annotations

from .entry import main

if __name__ == "__main__":
    main()
