"""Export a trained model to ONNX graphs and a bundle.

::

    from rillet.export import export, verify

    bundle = export("my-run", "my-model")
    print(verify(bundle, "my-run").table())
"""

from __future__ import annotations

from ..runtime.missing_parts import needing

with needing("rillet.export", "export"):
    from .api import export, verify
from .inspect.activations import Inside, look_inside
from .inspect.picture import draw_inside
from .options import ExportOptions
from .parity.comparison import Comparison, Difference
from .parity.report import ParityReport
from .quantization.lower_precision import quantize

__all__ = ["Comparison", "Difference", "ExportOptions", "Inside", "ParityReport", "draw_inside"]
__all__ += ["export", "look_inside", "quantize", "verify"]
