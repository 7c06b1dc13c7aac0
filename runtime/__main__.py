"""``python -m rillet.runtime``: the ``rillet`` command, where its script is not on the path."""

from __future__ import annotations

from .cli.entry import main

__all__: list[str] = []

if __name__ == "__main__":
    main()
