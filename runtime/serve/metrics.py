"""Figures for Prometheus."""

from __future__ import annotations

from collections.abc import Callable

from prometheus_client import (
    CONTENT_TYPE_LATEST,
    CollectorRegistry,
    Counter,
    Gauge,
    Histogram,
    generate_latest,
)

__all__ = ["Metrics", "ModelCounters"]

_FIRST = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10)
_ROUND = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25)


class Metrics:
    """All figures of a server."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self.requests = Counter(
            "rillet_requests", "Requests answered", ["route", "status"], registry=self.registry
        )
        self._written = self._counter("rillet_tokens_written", "Tokens written")
        self._read = self._counter("rillet_tokens_read", "Tokens read from prompts and texts")
        self._rounds = Histogram(
            "rillet_round_seconds",
            "Time in which each text gains its next tokens",
            ["model"],
            buckets=_ROUND,
            registry=self.registry,
        )
        self._first = Histogram(
            "rillet_first_token_seconds",
            "Time from a request to its first token",
            ["model"],
            buckets=_FIRST,
            registry=self.registry,
        )
        self._rows = self._gauge("rillet_rows", "Texts being written")
        self._waiting = self._gauge("rillet_waiting", "Texts that wait for a row")
        self.streams = Gauge("rillet_streams", "Streams open in memory", registry=self.registry)

    def _counter(self, name: str, text: str) -> Counter:
        return Counter(name, text, ["model"], registry=self.registry)

    def _gauge(self, name: str, text: str) -> Gauge:
        return Gauge(name, text, ["model"], registry=self.registry)

    def counters_of(self, model: str) -> ModelCounters:
        """What one model counts."""
        return ModelCounters(
            self._written.labels(model),
            self._read.labels(model),
            self._rounds.labels(model),
        )

    def observe_first(self, model: str, seconds: float) -> None:
        """Note how long a request waited for its first token."""
        self._first.labels(model).observe(seconds)

    def watch_line(
        self, model: str, rows: Callable[[], float], waiting: Callable[[], float]
    ) -> None:
        """Show how many texts a model writes, and how many wait."""
        self._rows.labels(model).set_function(rows)
        self._waiting.labels(model).set_function(waiting)

    def page(self) -> tuple[bytes, str]:
        """The figures as Prometheus reads them, and the type of that."""
        return generate_latest(self.registry), CONTENT_TYPE_LATEST


class ModelCounters:
    """What one model counts.

    Args:
        written: Tokens written.
        read: Tokens read.
        rounds: Seconds of rounds.
    """

    def __init__(self, written: Counter, read: Counter, rounds: Histogram) -> None:
        self._written, self._rounds = written, rounds
        self.on_read: Callable[[float], None] = read.inc

    def on_round(self, seconds: float, tokens: int) -> None:
        """Note a round."""
        self._rounds.observe(seconds)
        self._written.inc(tokens)
