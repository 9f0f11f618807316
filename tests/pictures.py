"""Images and networks that the tests of promotion share."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from torch import nn
from torchvision.io import write_jpeg

from afi_search.data.image_reader import Preprocessing
from afi_search.model.model import Facts, Model
from afi_search.nn import build
from afi_search.space import Architecture
from tests.typed import there

CLASSES = ("n01", "n02", "n03")
TRAIN_IMAGES, VALIDATION_IMAGES = 8, 3


@pytest.fixture
def pictures(tmp_path: Path) -> Path:
    """Three classes of random JPEGs, 8 to train and 3 to validate each."""
    generator = torch.Generator().manual_seed(0)
    for part, count in (("train", TRAIN_IMAGES), ("val", VALIDATION_IMAGES)):
        for name in CLASSES:
            folder = tmp_path / "pictures" / part / name
            folder.mkdir(parents=True)
            for index in range(count):
                size = (3, 40 + index, 48)
                pixels = torch.randint(0, 256, size, dtype=torch.uint8, generator=generator)
                write_jpeg(pixels, str(folder / f"{index}.JPEG"))
    return tmp_path / "pictures"


@pytest.fixture(scope="session")
def imagenette() -> Path:
    """Real ImageNet images of 10 classes; skips the test where there are none."""
    folder = os.environ.get("AFI_SEARCH_DATA")
    if not folder:
        pytest.skip("needs ImageNet images: AFI_SEARCH_DATA is not set")
    path = Path(folder) / "imagenette"
    if not (path / "train").is_dir() or not (path / "val").is_dir():
        pytest.skip(f"needs ImageNet images: {path} has no folders train and val")
    return path


@pytest.fixture
def bucket(monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """A bucket of an S3 server on this machine, which this process and its children are told of."""
    s3fs = pytest.importorskip("s3fs")
    moto_server = pytest.importorskip("moto.server")
    server = moto_server.ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://{host}:{port}")
    monkeypatch.setenv("AWS_DEFAULT_REGION", "us-east-1")
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.setenv(name, "test")
    s3fs.S3FileSystem.clear_instance_cache()
    s3fs.S3FileSystem().mkdir("bucket")
    yield "bucket"
    s3fs.S3FileSystem.clear_instance_cache()
    server.stop()


def trained(text: str, *, stem: int = 32, crop: int = 32, num_classes: int = 10) -> Model:
    """A model whose batch norms have statistics that matter, as after a training."""
    torch.manual_seed(0)
    module = build(Architecture.parse(text), num_classes=num_classes, image_size=stem)
    for norm in module.modules():
        if isinstance(norm, nn.BatchNorm2d):
            nn.init.normal_(there(norm.running_mean), std=0.2)
            nn.init.uniform_(there(norm.running_var), 0.5, 2)
            nn.init.uniform_(norm.weight, 0.5, 1.5)
            nn.init.normal_(norm.bias, std=0.2)
    return Model(
        module,
        Facts(
            architecture=Architecture.parse(text).text,
            num_classes=num_classes,
            stem=stem,
            preprocessing=Preprocessing(
                resize=crop, crop=crop, mean=(0.4, 0.5, 0.6), std=(0.2, 0.25, 0.3)
            ),
            classes=tuple(f"class {number}" for number in range(num_classes)),
            metrics={"test accuracy": 0.7109},
            training={"study": "a study", "recipe": {"epochs": 300}},
        ),
    )


def noise(batch: int, crop: int) -> torch.Tensor:
    return torch.randn(batch, 3, crop, crop, generator=torch.Generator().manual_seed(batch))
