"""Export a trained model to ONNX graphs and a bundle.

::

    from rillet.export import export, verify

    bundle = export("my-run", "my-model")
    print(verify(bundle, "my-run").table())
"""

from __future__ import annotations

from .api import export, verify
from .comparison import Comparison, Difference
from .lower_precision import quantize
from .options import ExportOptions
from .parity import ParityReport

__all__ = ["Comparison", "Difference", "ExportOptions", "ParityReport", "export", "quantize"]
__all__ += ["verify"]
