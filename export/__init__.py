"""Export a trained model to ONNX graphs and a bundle.

::

    from rillet.export import export, verify

    bundle = export("my-run", "my-model")
    print(verify(bundle, "my-run").table())
"""

from __future__ import annotations

try:
    from .api import export, verify
except ModuleNotFoundError as error:
    raise ModuleNotFoundError(
        f"rillet.export needs {error.name}, which is not installed; install it with: "
        "pip install 'rillet[export]'",
        name=error.name,
    ) from error
from .inspect.activations import Inside, look_inside
from .inspect.picture import draw_inside
from .options import ExportOptions
from .parity.comparison import Comparison, Difference
from .parity.report import ParityReport
from .quantization.lower_precision import quantize

__all__ = ["Comparison", "Difference", "ExportOptions", "Inside", "ParityReport", "draw_inside"]
__all__ += ["export", "look_inside", "quantize", "verify"]
