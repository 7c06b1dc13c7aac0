"""Write a small bundle and a saved stream in the current formats, to keep in tests/data.

    python scripts/keep_format.py

Run it once before a release raises a format version. `tests/export/test_compatibility.py` checks
that every later version of rillet reads these files, so they are never rewritten.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT / "tests"))

from rillet.export import ExportOptions  # noqa: E402
from rillet.export.bundle.writer import write_bundle  # noqa: E402
from rillet.runtime import __version__, load  # noqa: E402
from rillet.runtime.state_table import FORMAT_VERSION  # noqa: E402
from rillet.runtime.streams.saved_state import STATE_FORMAT  # noqa: E402
from rillet.train import builtin_corpus, save_checkpoint  # noqa: E402
from support.models import SMALL, train_small  # noqa: E402

PROMPT = "The value of an expression is "
OPTIONS: dict[str, Any] = {"max_new_tokens": 80, "temperature": 0.8, "top_p": 0.9, "seed": 7}


def main() -> None:
    """Write the files, unless this format is already kept."""
    folder = ROOT / "tests" / "data" / f"format-{FORMAT_VERSION}"
    if folder.exists():
        raise SystemExit(f"{folder} exists; kept formats are never rewritten")
    (folder / "checkpoint").mkdir(parents=True)
    config = SMALL.replace(memory_key="contexts", memory=3_000)
    checkpoint = train_small(config, builtin_corpus()[:60_000], steps=200)
    save_checkpoint(folder / "checkpoint", checkpoint)
    # A bundle with every kind of file.
    options = ExportOptions(parity_steps=500, teach="builtin:pydoc")
    write_bundle(checkpoint, folder / "bundle", options=options)
    model = load(folder / "bundle")
    session = model.session()
    session.feed(PROMPT)
    stream = session.stream(**OPTIONS)
    begun = "".join(next(stream) for _ in range(20))
    session.save(folder / "stream.state")
    expected = {
        "rillet": __version__,
        "bundle": FORMAT_VERSION,
        "state": STATE_FORMAT.version,
        "prompt": PROMPT,
        "options": OPTIONS,
        "begun": begun,
        "rest": "".join(stream),
        "nats_per_token": model.score(PROMPT).nats_per_token,
    }
    (folder / "expected.json").write_text(json.dumps(expected, indent=2) + "\n")
    print(f"{folder}: {sum(f.stat().st_size for f in folder.rglob('*')):,} bytes")


if __name__ == "__main__":
    main()
