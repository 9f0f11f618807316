"""From the front to a model that ships: confirm with seeds, train on ImageNet, export, predict."""

from afi_search.promote.model import Model, ModelError, load

__all__ = ["Model", "ModelError", "load"]
