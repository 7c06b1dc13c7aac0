"""Resume a stream on a device that was switched off mid-sentence.

python examples/power_down.py models/shakespeare-nano romeo.state --prompt "ROMEO:" --rate 30

At SIGTERM (which a system sends before it powers down), SIGPWR or Ctrl-C, the script saves the
stream after the current token. The same command resumes it, and continues with exactly the text
that would have come without the interruption. At the end of the text it removes the file.
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
    """Generate until the end, or until the device shuts down."""
    parser = ArgumentParser(description=__doc__, formatter_class=RawTextHelpFormatter)
    parser.add_argument("bundle", type=Path)
    parser.add_argument("state", type=Path, help="the file to save the stream to")
    parser.add_argument("--prompt", default="ROMEO:")
    parser.add_argument("--length", type=int, default=1000, help="total number of tokens (1000)")
    parser.add_argument(
        "--rate", type=float, default=0, help="tokens per second; 0 is as fast as possible"
    )
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()

    model = rillet.runtime.load(options.bundle)
    if options.state.exists():
        session = model.restore(options.state)
        stream = session.resume()
        print(f"resuming at token {session.position}", file=sys.stderr)
    else:
        session = model.session()
        session.feed(options.prompt)
        print(options.prompt, end="", flush=True)
        stream = session.stream(max_new_tokens=options.length, temperature=0.8, seed=options.seed)

    # A handler can run at any instruction, so it only requests the stop: the current step finishes,
    # and leaves the session in a consistent state.
    for name in ("SIGTERM", "SIGINT", "SIGPWR"):
        if hasattr(signal, name):
            signal.signal(getattr(signal, name), lambda *_: stream.cancel())

    for piece in stream:
        print(piece, end="", flush=True)
        if options.rate:
            time.sleep(1 / options.rate)

    if stream.finish_reason == "cancelled":
        session.save(options.state)  # atomic: a crash leaves the old file or the new one
        print(f"saved at token {session.position}", file=sys.stderr)
    else:
        options.state.unlink(missing_ok=True)
        print()


if __name__ == "__main__":
    try:
        main()
    except (OSError, RilletError) as error:
        sys.exit(f"Error: {error}")
