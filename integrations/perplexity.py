"""A metric for ``evaluate``: the perplexity of texts under a bundle.

::

    import evaluate
    import rillet.integrations.perplexity as perplexity

    metric = evaluate.load(perplexity.__file__)
    metric.compute(predictions=["Dear diary, ..."], model_id="my-model")
"""

from __future__ import annotations

from typing import Any

import datasets
import evaluate

from rillet.runtime import load

__all__ = ["Perplexity"]

_DESCRIPTION = "Perplexity of texts under a rillet bundle, each text a stream of its own."

_INPUTS = """
Args:
    predictions: The texts.
    model_id: The bundle: a folder, or hf:OWNER/NAME.
    revision: Which version of a bundle on the Hugging Face Hub.
    provider: What runs it: auto, native or cpu.
Returns:
    perplexities: One for each text, per token. The first token of a text has no context and is not
        counted.
    mean_perplexity: Their mean.
    bits_per_byte: Of all texts together; it compares models whose tokens differ.
"""


class Perplexity(evaluate.Metric):
    """Scores texts; see :data:`_INPUTS`."""

    def _info(self) -> evaluate.MetricInfo:
        return evaluate.MetricInfo(
            description=_DESCRIPTION,
            citation="",
            inputs_description=_INPUTS,
            features=datasets.Features({"predictions": datasets.Value("string")}),
        )

    def _compute(
        self,
        predictions: list[str],
        model_id: str,
        revision: str | None = None,
        provider: Any = "auto",
    ) -> dict[str, Any]:
        with load(model_id, provider, revision=revision) as model:
            scores = [model.score(text) for text in predictions]
        perplexities = [score.perplexity for score in scores]
        size = sum(score.bytes for score in scores)
        return {
            "perplexities": perplexities,
            "mean_perplexity": sum(perplexities) / len(perplexities),
            "bits_per_byte": sum(score.bits_per_byte * score.bytes for score in scores) / size,
        }
