"""A small picture of one sample for report.html: of its image file, or of its array where that is one.

At most SIDE pixels wide and high and about LARGEST bytes; PNG or JPEG, the same bytes each time.
"""

from io import BytesIO
from typing import Any

import numpy as np
from numpy.typing import NDArray

from scripts.case.read_case import Case
from scripts.data.samples import Samples

SIDE = 96
LARGEST = 6000
LEAST = 4  # pixels; a narrower array is hardly a picture
QUALITIES = (85, 70, 55, 40, 25, 10)


def thumbnail(case: Case, data: Samples, index: int) -> bytes | None:
    """A PNG or JPEG of sample `index`; None where its inputs are no picture.

    Raises ValueError with a sentence where the sample can no longer be read.
    """
    if case.images is not None:
        assert data.names is not None
        return _of_file(case, data.names[index])
    if len(case.inputs) != 1 or channels_first(case.inputs[0].shape) is None:
        return None
    try:
        array = data.batch(index, index + 1)[case.inputs[0].name][0]
    except IndexError:
        raise ValueError(f"There is no sample {index} any more.") from None
    return encode(enlarged(scaled(array)))


def channels_first(shape: tuple[int, ...]) -> bool | None:
    """Whether an array of this shape is a picture (c, h, w) or, False, (h, w, c); None: neither."""
    if len(shape) != 3:
        return None
    if shape[0] in (1, 3) and min(shape[1:]) >= LEAST:
        return True
    return False if shape[2] in (1, 3) and min(shape[:2]) >= LEAST else None


def scaled(array: NDArray[Any]) -> NDArray[np.uint8]:
    """Shape (h, w, c): the least finite value black, the largest white; what is not finite, black."""
    values = np.asarray(array, np.float64)
    if channels_first(values.shape):
        values = values.transpose(1, 2, 0)
    finite = np.isfinite(values)
    low, high = (
        (values[finite].min(), values[finite].max()) if finite.any() else (np.float64(0),) * 2
    )
    unit = max(abs(low), abs(high)) or 1.0  # so that high - low stays finite
    span = high / unit - low / unit or 1.0
    part = np.where(finite, (np.where(finite, values, low) / unit - low / unit) / span, 0.0)
    result: NDArray[np.uint8] = np.round(part * 255).astype(np.uint8)
    return result


def enlarged(pixels: NDArray[np.uint8]) -> Any:
    """An image of about SIDE pixels: each pixel a square of whole ones, or the image made smaller."""
    from PIL import Image

    times = max(1, SIDE // max(pixels.shape[:2]))
    pixels = pixels.repeat(times, axis=0).repeat(times, axis=1)
    picture = Image.fromarray(pixels[:, :, 0] if pixels.shape[2] == 1 else pixels)
    picture.thumbnail((SIDE, SIDE))
    return picture


def encode(picture: Any) -> bytes:
    """PNG, and where that is too large the best JPEG that is not."""
    stream = BytesIO()
    picture.save(stream, "PNG", optimize=True)
    for quality in QUALITIES:
        if stream.tell() <= LARGEST:
            break
        stream = BytesIO()
        picture.save(stream, "JPEG", quality=quality, optimize=True)
    return stream.getvalue()


def _of_file(case: Case, name: str) -> bytes:
    """The image file itself, not what the model sees of it."""
    from PIL import Image

    assert case.images is not None
    try:
        with Image.open(case.images.folder / name) as image:
            image.draft("RGB", (2 * SIDE, 2 * SIDE))
            picture = image.convert("L" if case.images.mode == "grey" else "RGB")
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        words = "it is gone" if isinstance(error, FileNotFoundError) else "it does not decode"
        raise ValueError(f"The image cannot be shown: {words}.") from None
    picture.thumbnail((SIDE, SIDE))
    return encode(picture)
