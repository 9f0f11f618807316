"""What ships: the model folder, its card, ONNX, and models from checkpoints."""

from afi_search.model.model import Model, ModelError, load

__all__ = ["Model", "ModelError", "load"]
