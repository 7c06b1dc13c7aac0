"""Inference engines behind one protocol, and the choice between them.

``base`` states what an engine offers, ``select`` chooses one, and each has a folder of its own:
``native`` runs the library of ours, ``ort`` ONNX Runtime, and ``tensorrt`` TensorRT. What several
engines need lies beside them: ``checks``, ``device_state``, the ``cuda`` layer, and for engines
that are built ahead of time ``engine_key`` and ``cache``.
"""
