"""What is commonly used to find odd lines in a log: scores for each line, high where it is odd."""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Callable, Sequence

__all__ = ["BASELINES"]

_NUMBER = re.compile(r"0x[0-9a-f]+|\d+")
_TOKEN = re.compile(r"\w+|[^\w\s]")


def masked(line: str) -> str:
    """A line with its numbers replaced, as all of these want it."""
    return _NUMBER.sub("0", line)


def template_rarity(lines: Sequence[str]) -> list[float]:
    """How rare a line's Drain template is among all lines, the later ones included."""
    from drain3 import TemplateMiner
    from drain3.template_miner_config import TemplateMinerConfig

    miner = TemplateMiner(config=TemplateMinerConfig())
    clusters = [miner.add_log_message(masked(line))["cluster_id"] for line in lines]
    sizes = Counter(clusters)
    return [-math.log(sizes[cluster] / len(lines)) for cluster in clusters]


def isolation_forest(lines: Sequence[str]) -> list[float]:
    """An isolation forest over counts of tokens, fitted to all lines."""
    from sklearn.ensemble import IsolationForest
    from sklearn.feature_extraction.text import CountVectorizer

    counts = CountVectorizer(tokenizer=_TOKEN.findall, token_pattern=None).fit_transform(
        map(masked, lines)
    )
    forest = IsolationForest(n_estimators=200, random_state=0).fit(counts)
    scores: list[float] = (-forest.score_samples(counts)).tolist()
    return scores


def ngram_surprise(lines: Sequence[str]) -> list[float]:
    """Mean surprise of a line's tokens to a trigram of the lines before it.

    The trigram is Witten and Bell's, interpolated with the orders below.
    """
    counts: dict[tuple[str, ...], Counter[str]] = {}
    scores = []
    for line in lines:
        tokens = ["", "", *_TOKEN.findall(masked(line)), "\n"]
        grams = list(zip(tokens, tokens[1:], tokens[2:], strict=False))
        scores.append(sum(_surprise(counts, *gram) for gram in grams) / len(grams))
        for first, second, token in grams:
            for context in ((), (second,), (first, second)):
                counts.setdefault(context, Counter())[token] += 1
    return scores


def _surprise(counts: dict[tuple[str, ...], Counter[str]], *gram: str) -> float:
    chance = 1e-6
    for length in range(3):
        seen = counts.get(gram[2 - length : 2])
        if seen:
            total, kinds = seen.total(), len(seen)
            chance = (seen[gram[2]] + kinds * chance) / (total + kinds)
    return -math.log(chance)


def severity(lines: Sequence[str]) -> list[float]:
    """A search for words that faults are known to be logged with."""
    words = re.compile(r"\b(error|fatal|panic|warning|fail(ed|ure)?)\b", re.IGNORECASE)
    return [float(words.search(line) is not None) for line in lines]


BASELINES: dict[str, Callable[[Sequence[str]], list[float]]] = {
    "template rarity (drain3)": template_rarity,
    "isolation forest of token counts": isolation_forest,
    "surprise of a token trigram": ngram_surprise,
    "search for error, fatal, warning ...": severity,
}
"""All of them, by name."""
