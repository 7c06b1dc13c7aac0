"""A device that is switched off in mid-sentence, and goes on when it is switched on again.

python examples/power_down.py models/shakespeare-nano romeo.state --prompt "ROMEO:" --rate 30

At SIGTERM (what a system sends before it powers down), SIGPWR or Ctrl-C, the stream is saved after
the token that is being written. The same command goes on from there: bit for bit the text that
would have come without the interruption. At the end of the text the file is removed.
"""

from __future__ import annotations

import signal
import sys
import time
from argparse import ArgumentParser, RawTextHelpFormatter
from pathlib import Path

import rillet.runtime
from rillet.runtime import RilletError


def main() -> None:
    """Write until the end, or until the power goes."""
    parser = ArgumentParser(description=__doc__, formatter_class=RawTextHelpFormatter)
    parser.add_argument("bundle", type=Path)
    parser.add_argument("state", type=Path, help="the file that the stream is saved to")
    parser.add_argument("--prompt", default="ROMEO:")
    parser.add_argument("--length", type=int, default=1000, help="tokens to write in all (1000)")
    parser.add_argument("--rate", type=float, default=0, help="tokens a second; 0 does not wait")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()

    model = rillet.runtime.load(options.bundle)
    if options.state.exists():
        session = model.restore(options.state)
        stream = session.resume()
        print(f"going on at token {session.position}", file=sys.stderr)
    else:
        session = model.session()
        session.feed(options.prompt)
        print(options.prompt, end="", flush=True)
        stream = session.stream(max_new_tokens=options.length, temperature=0.8, seed=options.seed)

    # A handler may come at any instruction, so it only asks: the step under way is finished, and
    # what the session then holds is whole.
    for name in ("SIGTERM", "SIGINT", "SIGPWR"):
        if hasattr(signal, name):
            signal.signal(getattr(signal, name), lambda *_: stream.cancel())

    for piece in stream:
        print(piece, end="", flush=True)
        if options.rate:
            time.sleep(1 / options.rate)

    if stream.finish_reason == "cancelled":
        session.save(options.state)  # atomic: a crash here leaves the old file, or the new one
        print(f"saved at token {session.position}", file=sys.stderr)
    else:
        options.state.unlink(missing_ok=True)
        print()


if __name__ == "__main__":
    try:
        main()
    except RilletError as error:
        sys.exit(f"Error: {error}")
