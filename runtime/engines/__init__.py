"""Inference engines behind one protocol, and the choice between them.

``base`` states what an engine offers, ``select`` chooses one, and each has a folder of its own:
``ort`` runs ONNX Runtime and ``tensorrt`` runs TensorRT. What several engines need lies beside
them: ``checks``, ``device_state``, the ``cuda`` layer, and for engines that are built ahead of
time ``engine_key`` and ``cache``.
"""
