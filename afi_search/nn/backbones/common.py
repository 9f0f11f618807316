"""What the families share: stems, convolutions with their batch norms, the initialisation."""

from __future__ import annotations

from torch import nn

from afi_search.nn.ops.batch_norm import BatchNorm2d, FusedSequential

CIFAR_SIZE = 32


def has_cifar_stem(image_size: int) -> bool:
    """Tell whether images of that size get the stem that keeps their resolution."""
    return image_size <= CIFAR_SIZE


def stem(channels: int, kernel_size: int, image_size: int) -> tuple[nn.Conv2d, nn.Module]:
    """Return a stem's convolution and what pools its output.

    The ImageNet stem halves the resolution twice, by a convolution of that kernel size and by max
    pooling; the CIFAR stem is a 3x3 convolution of stride 1.
    """
    if has_cifar_stem(image_size):
        return nn.Conv2d(3, channels, 3, padding=1, bias=False), nn.Identity()
    padding = kernel_size // 2
    return (
        nn.Conv2d(3, channels, kernel_size, stride=2, padding=padding, bias=False),
        nn.MaxPool2d(3, stride=2, padding=1),
    )


def conv_norm(
    inputs: int,
    outputs: int,
    kernel_size: int,
    activation: type[nn.ReLU] | type[nn.ReLU6] | None = None,
    *,
    stride: int = 1,
    groups: int = 1,
) -> FusedSequential:
    """Convolution, batch norm and, where one is given, activation."""
    padding = kernel_size // 2
    layers: list[nn.Module] = [
        nn.Conv2d(inputs, outputs, kernel_size, stride, padding, groups=groups, bias=False),
        BatchNorm2d(outputs),
    ]
    if activation is not None:
        layers.append(activation(inplace=True))
    return FusedSequential(*layers)


def initialise(model: nn.Module) -> None:
    """Draw every 2-d convolution's weights as He et al. 2015 do (normal, fan out).

    Batch norms start as the identity and linear layers as torch has them. Draws from the current
    torch random number generator.
    """
    for module in model.modules():
        if isinstance(module, nn.Conv2d):
            nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
