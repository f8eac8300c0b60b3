"""From an image file to the array a model takes, by the table [images] of case.toml.

The steps and their order: decode, grey or RGB, resize, centre crop, divide, (x - mean) / std,
in float32; the geometry is torchvision's (Resize on PIL images, CenterCrop).
"""

import re
from pathlib import Path
from typing import Any

import click
import numpy as np
from numpy.typing import NDArray

from scripts.case.read_case import Images, Input

SUFFIXES = (".png", ".jpg", ".jpeg", ".bmp", ".webp", ".tif", ".tiff", ".gif", ".pgm", ".ppm")


def decode(path: Path, how: Images, wanted: Input) -> NDArray[Any]:
    """One image as an array of `wanted.shape` and `wanted.dtype`.

    Raises click.ClickException naming the file when it does not decode, has another depth than
    8 bits, is smaller than the crop, or ends in another shape.
    """
    from PIL import Image, UnidentifiedImageError

    try:
        with Image.open(path) as image:
            if _is_deep(image):
                raise click.ClickException(
                    f"The image {path} has more than 8 bits a channel (mode {image.mode}), which "
                    "would be cut off. Convert it to 8 bits, or give the data as .npy."
                )
            picture = image.convert("L" if how.mode == "grey" else "RGB")
    except (
        UnidentifiedImageError,
        OSError,
        SyntaxError,
        ValueError,
        Image.DecompressionBombError,
    ) as error:
        raise click.ClickException(f"The image {path} does not decode: {error}.") from None
    if how.resize is not None:
        height, width = _resized(picture.height, picture.width, how.resize)
        resample = Image.Resampling[how.interpolation.upper()]
        picture = picture.resize((width, height), resample)
    pixels = np.asarray(picture)
    if how.centre_crop is not None:
        pixels = _crop(pixels, how.centre_crop, path)
    array = _scaled(np.atleast_3d(pixels), how, wanted.dtype)
    if how.layout == "chw":
        array = np.ascontiguousarray(array.transpose(2, 0, 1))
    if array.shape != wanted.shape:
        raise click.ClickException(
            f"The image {path} gives an array of shape {array.shape}, and case.toml declares "
            f"{wanted.shape}. Set resize, centre_crop, mode or layout in [images], or the shape."
        )
    return array


def _is_deep(image: Any) -> bool:
    """More than 8 bits a channel; PIL cuts those of RGB to 8 without a word."""
    return image.mode.startswith(("I", "F")) or any(
        re.search(r";16[BLN]", str(args)) or (name == "ppm" and args[-1] > 255)
        for name, _, _, args in image.tile
    )


def _resized(height: int, width: int, size: int | tuple[int, int]) -> tuple[int, int]:
    if isinstance(size, tuple):
        return size
    if height <= width:
        return size, int(size * width / height)
    return int(size * height / width), size


def _crop(pixels: NDArray[Any], size: tuple[int, int], path: Path) -> NDArray[Any]:
    height, width = pixels.shape[:2]
    if height < size[0] or width < size[1]:
        raise click.ClickException(
            f"The image {path} is {height}x{width} and smaller than centre_crop "
            f"{size[0]}x{size[1]}. Set resize in [images] to at least that."
        )
    top, left = round((height - size[0]) / 2), round((width - size[1]) / 2)
    return pixels[top : top + size[0], left : left + size[1]]


def _scaled(pixels: NDArray[Any], how: Images, dtype: str) -> NDArray[Any]:
    """Arithmetic in float32; a dtype of whole numbers admits none and keeps the pixels."""
    if how.divide_by is None and how.mean is None and how.std is None:
        return pixels.astype(dtype)
    array: NDArray[Any] = pixels.astype(np.float32)
    if how.divide_by is not None:
        array = array / np.float32(how.divide_by)
    if how.mean is not None:
        array = array - np.array(how.mean, np.float32)
    if how.std is not None:
        array = array / np.array(how.std, np.float32)
    return array.astype(dtype)
