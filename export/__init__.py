"""Export a trained model to ONNX graphs and a bundle.

::

    from rillet.export import export, verify

    bundle = export("my-run", "my-model")
    print(verify(bundle, "my-run").table())
"""

from __future__ import annotations

from .api import export, verify
from .comparison import Comparison, Difference
from .inside_picture import draw_inside
from .look_inside import Inside, look_inside
from .lower_precision import quantize
from .options import ExportOptions
from .parity import ParityReport

__all__ = ["Comparison", "Difference", "ExportOptions", "Inside", "ParityReport", "draw_inside"]
__all__ += ["export", "look_inside", "quantize", "verify"]
