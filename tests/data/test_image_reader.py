"""Every image that people have is read as a viewer shows it, or refused with its reason."""

from __future__ import annotations

import os
import struct
import zlib
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torchvision.io import decode_jpeg

from afi_search.data.image_reader import ImageError, Preprocessing, check_image, read_image

PIXELS = np.random.RandomState(0).randint(0, 256, (30, 40, 3), np.uint8)
IMAGE = Image.fromarray(PIXELS)
AS_READ = torch.from_numpy(PIXELS).permute(2, 0, 1)


def png(width: int, height: int, depth: int, colour: int, rows: bytes) -> bytes:
    def chunk(kind: bytes, data: bytes) -> bytes:
        return (
            struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
        )

    header = struct.pack(">IIBBBBB", width, height, depth, colour, 0, 0, 0)
    body = chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + body


@pytest.mark.parametrize("name", ["a.png", "a.tif", "a.bmp", "a.ppm", "a.PNG"])
def test_pixels_are_the_files(tmp_path: Path, name: str) -> None:
    IMAGE.save(tmp_path / name)
    check_image(tmp_path / name)
    assert torch.equal(read_image(tmp_path / name), AS_READ)


def test_a_file_larger_than_any_image_is_not_read(tmp_path: Path) -> None:
    (tmp_path / "a.png").write_bytes(png(1, 1, 8, 0, b"\0\0"))
    os.truncate(tmp_path / "a.png", 2**31)
    with pytest.raises(ImageError, match=r"a.png: cannot be read: it has more than 800,000,000 b"):
        read_image(tmp_path / "a.png")


@pytest.mark.parametrize("mode", ["RGB", "L"])
@pytest.mark.parametrize("quality", [30, 95])
def test_jpegs_are_decoded_as_torchvision_does(tmp_path: Path, mode: str, quality: int) -> None:
    IMAGE.convert(mode).save(tmp_path / "a.jpg", quality=quality)
    data = torch.from_numpy(np.fromfile(tmp_path / "a.jpg", np.uint8))
    expected = decode_jpeg(data).expand(3, -1, -1)
    assert torch.equal(read_image(tmp_path / "a.jpg"), expected)


@pytest.mark.parametrize(("colours", "suffix"), [(1, "png"), (3, "png"), (1, "tif")])
def test_16_bits_are_scaled_to_8(tmp_path: Path, colours: int, suffix: str) -> None:
    deep = np.random.RandomState(1).randint(0, 65536, (20, 10, colours), np.uint16)
    path = tmp_path / f"a.{suffix}"
    if suffix == "png":
        rows = b"".join(b"\0" + row.astype(">u2").tobytes() for row in deep)
        path.write_bytes(png(10, 20, 16, {1: 0, 3: 2}[colours], rows))
    else:
        Image.fromarray(deep[:, :, 0]).save(path)
    expected = torch.from_numpy((deep >> 8).astype(np.uint8)).permute(2, 0, 1).expand(3, -1, -1)
    assert torch.equal(read_image(path), expected)


@pytest.mark.parametrize(
    ("mode", "suffix"),
    [
        ("1", "png"),
        ("L", "png"),
        ("LA", "png"),
        ("P", "png"),
        ("P", "gif"),
        ("RGBA", "png"),
        ("RGBA", "webp"),
        ("CMYK", "jpg"),
        ("CMYK", "tif"),
        ("YCbCr", "tif"),
    ],
)
def test_every_mode_becomes_rgb(tmp_path: Path, mode: str, suffix: str) -> None:
    path = tmp_path / f"a.{suffix}"
    Image.new("RGB", (40, 30), (255, 255, 255)).convert(mode).save(path)
    check_image(path)
    pixels = read_image(path)
    assert (pixels.shape, pixels.dtype) == ((3, 30, 40), torch.uint8)
    assert pixels.min() > 250


@pytest.mark.parametrize("suffix", ["gif", "webp", "png", "tif"])
def test_of_more_than_one_frame_the_first_is_read(tmp_path: Path, suffix: str) -> None:
    frames = [Image.new("RGB", (40, 30), colour) for colour in ("red", "blue", "green")]
    path = tmp_path / f"a.{suffix}"
    frames[0].save(path, save_all=True, append_images=frames[1:], lossless=True)
    assert read_image(path)[:, 15, 20].tolist() == [255, 0, 0]


@pytest.mark.parametrize("suffix", ["jpg", "png", "webp", "tif"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_images_are_upright(tmp_path: Path, suffix: str, orientation: int) -> None:
    corners = np.zeros((32, 64, 3), np.uint8)
    corners[:16, :32] = 255
    exif = Image.Exif()
    exif[0x112] = orientation
    path = tmp_path / f"a.{suffix}"
    Image.fromarray(corners).save(path, exif=exif)
    pixels = read_image(path).float().mean(dim=0)

    upright = pixels if orientation < 5 else pixels.T
    assert upright.shape == (32, 64)
    bottom, right = [(0, 0), (0, 1), (1, 1), (1, 0)][(orientation - 1) % 4]
    assert pixels[-8 if bottom else 8, -8 if right else 8] > 200


def test_damaged_exif_says_nothing(tmp_path: Path) -> None:
    IMAGE.save(tmp_path / "a.jpg", exif=b"Exif\0\0II*\0\xff\xff\xff\xff garbage")
    assert read_image(tmp_path / "a.jpg").shape == (3, 30, 40)


def saved(suffix: str, folder: Path) -> bytes:
    IMAGE.save(folder / f"whole.{suffix}")
    return (folder / f"whole.{suffix}").read_bytes()


BROKEN: dict[str, Callable[[Path], bytes]] = {
    "empty.jpg": lambda folder: b"",
    "text.jpg": lambda folder: b"no image",
    "between.jpg": lambda folder: b"\xff\xd8" + b"x" * 500 + b"\xff\xd9",
    "cut.jpg": lambda folder: saved("jpg", folder)[:-200],
    "cut.png": lambda folder: saved("png", folder)[:-200],
    "cut.gif": lambda folder: saved("gif", folder)[:-200],
    "cut.tif": lambda folder: saved("tif", folder)[:-200],
    "cut.bmp": lambda folder: saved("bmp", folder)[:-200],
    "cut.webp": lambda folder: saved("webp", folder)[:-200],
    "named.jpg": lambda folder: saved("png", folder)[:-200],
    "damaged.png": lambda folder: (
        saved("png", folder)[:900] + b"\0" * 99 + saved("png", folder)[999:]
    ),
    "bomb.png": lambda folder: png(60_000, 60_000, 8, 2, b"\0" * 1000),
    "large.png": lambda folder: png(12_000, 12_000, 8, 2, b"\0" * 1000),
    "postscript.jpg": lambda folder: b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n",
}


@pytest.mark.parametrize("name", BROKEN)
def test_what_is_broken_is_refused_by_scan_and_reader_with_its_reason(
    tmp_path: Path, name: str
) -> None:
    path = tmp_path / name
    path.write_bytes(BROKEN[name](tmp_path))
    for read in (check_image, read_image):
        with pytest.raises(ImageError, match=r"cannot be read: \S") as caught:
            read(path)
        assert str(caught.value).startswith(f"{path}: ")
        assert ("pixels" in str(caught.value)) == (name in ("bomb.png", "large.png"))


def test_pixels_without_a_scale_are_refused(tmp_path: Path) -> None:
    Image.fromarray(np.ones((9, 9), np.float32)).save(tmp_path / "a.tif")
    with pytest.raises(ImageError, match="32 bits"):
        read_image(tmp_path / "a.tif")


def test_a_file_that_is_not_there_is_told(tmp_path: Path) -> None:
    with pytest.raises(ImageError, match="there is no such image file"):
        read_image(tmp_path / "a.jpg")
    with pytest.raises(ImageError, match="it is no file"):
        read_image(tmp_path)


@pytest.mark.parametrize("size", [(1, 60_000), (60_000, 1)])
def test_what_is_seen_of_a_very_long_image_is_its_middle(size: tuple[int, int]) -> None:
    """Resized whole it would have 47 GB of bytes."""
    preprocessing = Preprocessing(resize=512, crop=448, mean=(0, 0, 0), std=(1, 1, 1))
    image = torch.zeros(3, *size, dtype=torch.uint8)
    image[:, size[0] // 2 - 1 : size[0] // 2 + 2, size[1] // 2 - 1 : size[1] // 2 + 2] = 200

    assert (preprocessing.cropped(image) == 200).float().mean() > 0.8


@pytest.mark.parametrize("suffix", ["jpg", "png", "gif", "webp", "tif", "bmp"])
def test_any_damage_ends_in_pixels_or_words(tmp_path: Path, suffix: str) -> None:
    whole = bytearray(saved(suffix, tmp_path))
    random = np.random.RandomState(2)
    path = tmp_path / f"a.{suffix}"
    for _ in range(60):
        damaged = whole.copy()
        for place in random.randint(0, len(whole), random.randint(1, 20)):
            damaged[place] = random.randint(256)
        path.write_bytes(damaged)
        try:
            assert read_image(path).dtype == torch.uint8
        except ImageError as error:
            assert "cannot be read" in str(error)


@pytest.mark.parametrize("padding", [b"\0" * 10, b"\0" * 10_000, b"made by a camera"])
def test_bytes_after_a_jpeg_do_no_harm(tmp_path: Path, padding: bytes) -> None:
    path = tmp_path / "a.jpg"
    path.write_bytes(saved("jpg", tmp_path) + padding)
    check_image(path)
    assert read_image(path).shape == (3, 30, 40)


@pytest.mark.parametrize("compression", ["tiff_lzw", "tiff_deflate", "packbits", "jpeg"])
def test_a_damaged_tiff_says_nothing_beside_its_reason(
    tmp_path: Path, capfd: pytest.CaptureFixture[str], compression: str
) -> None:
    IMAGE.save(tmp_path / "a.tif", compression=compression)
    whole = (tmp_path / "a.tif").read_bytes()
    for at in range(8, len(whole), len(whole) // 40):
        (tmp_path / "a.tif").write_bytes(whole[:at] + bytes([whole[at] ^ 0xFF]) + whole[at + 1 :])
        with suppress(ImageError):
            read_image(tmp_path / "a.tif")
    assert capfd.readouterr() == ("", "")
