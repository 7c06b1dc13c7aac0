"""Run thousands of streams in one batch: each step of the engine gives every stream a token.

python examples/many_streams.py models/shakespeare-nano --streams 2000 > texts.jsonl

Each stream has its own prompt, length and seed; when one ends, the next prompt takes its place.
"""

from __future__ import annotations

import itertools
import json
import sys
import time
from argparse import ArgumentParser, RawTextHelpFormatter
from collections.abc import Iterator
from pathlib import Path

import rillet.runtime
from rillet.runtime import Model, RilletError, Session

PROMPTS = ("ROMEO:", "JULIET:", "First Citizen:\nWe ", "KING HENRY:\nMy lord", "All:\n")


def streams(model: Model, prompts: list[str]) -> Iterator[tuple[str, Session]]:
    """Yield a session for each prompt; equal prompts are read once, and forked."""
    read: dict[str, Session] = {}
    for prompt in prompts:
        if prompt not in read:
            read[prompt] = model.session()
            read[prompt].feed(prompt)
        yield prompt, read[prompt].fork()


def main() -> None:
    """Keep the batch full until every stream has ended."""
    parser = ArgumentParser(description=__doc__, formatter_class=RawTextHelpFormatter)
    parser.add_argument("bundle", type=Path)
    parser.add_argument("--streams", type=int, default=2000, help="total number of streams (2000)")
    parser.add_argument("--at-once", type=int, default=1000, help="rows of the batch (1000)")
    parser.add_argument("--length", type=int, default=40, help="tokens per text (40)")
    parser.add_argument("--prompts", type=Path, help="a file with one prompt per line")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()

    known = options.prompts.read_text().splitlines() if options.prompts else list(PROMPTS)
    prompts = list(itertools.islice(itertools.cycle(known), options.streams))
    model = rillet.runtime.load(options.bundle, threads=options.threads)
    waiting = enumerate(streams(model, prompts))
    texts: dict[Session, dict[str, object]] = {}
    pieces: dict[Session, list[str]] = {}
    tokens = steps = 0
    start = time.perf_counter()
    with model.batch() as batch:
        while True:
            for index, (prompt, session) in itertools.islice(waiting, options.at_once - len(batch)):
                # Lengths differ, as real requests do.
                length = options.length - index % 5
                batch.join(session, max_new_tokens=length, seed=options.seed + index)
                texts[session] = {"stream": index, "seed": options.seed + index, "prompt": prompt}
                pieces[session] = []
            written = batch.write()
            if not written:
                break
            tokens, steps = tokens + len(written), steps + 1
            for session, token in written.items():
                pieces[session].append(token.text)
                if session not in batch:
                    text = "".join(pieces.pop(session))
                    print(json.dumps({**texts.pop(session), "text": text}))
                    session.close()
    seconds = time.perf_counter() - start
    print(
        f"{len(prompts):,} streams, {tokens:,} tokens in {steps} steps of at most "
        f"{options.at_once:,} streams: {tokens / seconds:,.0f} tokens per second in total; "
        f"{model.info.state_bytes / 1e3:,.0f} kB per stream of any length",
        file=sys.stderr,
    )


if __name__ == "__main__":
    try:
        main()
    except (OSError, RilletError) as error:
        sys.exit(f"Error: {error}")
