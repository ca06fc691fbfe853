from __future__ import annotations

import io

import numpy as np
import pytest
from PIL import Image

from automl.errors import DataError
from automl.tracks.image import decode
from automl.tracks.image.decode import decode_image, encode_png, longer_side, pixel_digest

RNG = np.random.default_rng(0)
COLOUR = RNG.integers(0, 256, (5, 7, 3), dtype=np.uint8)


def encoded(image: Image.Image, kind: str = "PNG", **options: object) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, format=kind, **options)
    return buffer.getvalue()


def test_png_pixels_come_back_exactly() -> None:
    np.testing.assert_array_equal(decode_image(encode_png(COLOUR)), COLOUR)


@pytest.mark.parametrize("kind", decode.FORMATS)
def test_every_format_gives_rgb(kind: str) -> None:
    pixels = decode_image(encoded(Image.fromarray(COLOUR), kind))

    assert pixels.shape == (5, 7, 3)
    assert pixels.dtype == np.uint8
    assert pixels.flags.c_contiguous


def test_grey_fills_three_channels() -> None:
    grey = COLOUR[:, :, 0]

    pixels = decode_image(encoded(Image.fromarray(grey)))

    np.testing.assert_array_equal(pixels, np.repeat(grey[:, :, None], 3, axis=2))


def test_sixteen_bit_grey_is_divided_by_257() -> None:
    levels = np.arange(256, dtype=np.uint16).reshape(16, 16) * 257
    levels[0, :2] = 128, 129

    pixels = decode_image(encoded(Image.fromarray(levels)))

    expected = np.arange(256).reshape(16, 16)
    expected[0, :2] = 0, 1
    np.testing.assert_array_equal(pixels[:, :, 0], expected)
    np.testing.assert_array_equal(pixels[:, :, 0], pixels[:, :, 2])


@pytest.mark.parametrize("kind", ["PNG", "TIFF"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_the_exif_orientation_is_applied(orientation: int, kind: str) -> None:
    exif = Image.Exif()
    exif[0x0112] = orientation
    turned = {
        1: COLOUR,
        2: COLOUR[:, ::-1],
        3: COLOUR[::-1, ::-1],
        4: COLOUR[::-1],
        5: COLOUR.transpose(1, 0, 2),
        6: np.rot90(COLOUR, -1),
        7: COLOUR[::-1, ::-1].transpose(1, 0, 2),
        8: np.rot90(COLOUR),
    }[orientation]

    pixels = decode_image(encoded(Image.fromarray(COLOUR), kind, exif=exif))

    np.testing.assert_array_equal(pixels, turned)


def test_alpha_lies_over_white() -> None:
    alpha = np.zeros((5, 7, 1), np.uint8)
    alpha[0] = 255
    rgba = Image.fromarray(np.concatenate([COLOUR, alpha], axis=2))

    pixels = decode_image(encoded(rgba))

    np.testing.assert_array_equal(pixels[0], COLOUR[0])
    assert (pixels[1:] == 255).all()


def test_a_transparent_palette_colour_is_white() -> None:
    image = Image.new("P", (4, 4), 1)
    image.putpalette([9, 9, 9, 50, 60, 70])
    image.putpixel((0, 0), 0)

    pixels = decode_image(encoded(image, transparency=0))

    assert pixels[0, 0].tolist() == [255, 255, 255]
    assert pixels[1, 1].tolist() == [50, 60, 70]


def images_of_all_modes() -> list[Image.Image]:
    whole = Image.fromarray(RNG.integers(0, 256, (23, 9, 4), dtype=np.uint8))
    palette = whole.convert("RGB").quantize(17)
    palette.info["transparency"] = 3
    sixteen = Image.fromarray(RNG.integers(0, 2**16, (23, 9), dtype=np.uint16))
    return [whole, palette, sixteen, *(whole.convert(mode) for mode in ("RGB", "L", "LA", "1"))]


@pytest.mark.parametrize("image", images_of_all_modes(), ids=lambda image: image.mode)
def test_an_image_is_the_same_in_strips(
    image: Image.Image, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = encoded(image)
    at_once = decode_image(data)
    monkeypatch.setattr(decode, "_STRIP_PIXELS", 40)  # four rows

    np.testing.assert_array_equal(decode_image(data), at_once)


def test_a_cmyk_image_is_the_same_in_strips(monkeypatch: pytest.MonkeyPatch) -> None:
    data = encoded(Image.fromarray(COLOUR).convert("CMYK"), "TIFF")
    at_once = decode_image(data)
    monkeypatch.setattr(decode, "_STRIP_PIXELS", 1)

    np.testing.assert_array_equal(decode_image(data), at_once)


def test_too_many_pixels_are_refused_before_they_are_decoded() -> None:
    whole = encoded(Image.new("RGB", (300, 200)))
    header_alone = whole[:60]  # what it says is enough to refuse it

    assert decode_image(whole, 60_000).shape == (200, 300, 3)
    for data in (whole, header_alone):
        with pytest.raises(DataError, match=r"300 by 200 pixels, more than 59,999"):
            decode_image(data, 59_999)


@pytest.mark.parametrize(
    ("kind", "options", "most", "why"),
    [
        ("WEBP", {}, 20_000, r"more than 9,999 \(half of data\.max_pixels, for WebP takes twice"),
        ("JPEG", {"progressive": True}, 15_000, r"9,999 \(two thirds of data\.max_pixels, for it"),
        ("JPEG", {}, 10_000, r"more than 9,999 \(data\.max_pixels\)"),
    ],
)
def test_formats_whose_decoders_take_more_memory_may_have_fewer_pixels(
    kind: str, options: dict[str, object], most: int, why: str
) -> None:
    data = encoded(Image.new("RGB", (100, 100)), kind, **options)

    assert decode_image(data, most).shape == (100, 100, 3)
    assert longer_side(data, most) == 100
    with pytest.raises(DataError, match=why):
        decode_image(data, most - 1)
    assert longer_side(data, most - 1) is None


@pytest.mark.parametrize("size", [(1, 65_536), (65_536, 1)])
def test_a_side_that_no_camera_has_is_refused_before_it_is_decoded(size: tuple[int, int]) -> None:
    data = encoded(Image.new("1", size))

    with pytest.raises(DataError, match=r"by .* pixels, and no side may have over 65,535"):
        decode_image(data)
    assert longer_side(data, 10**6) is None


def test_an_image_that_pillow_calls_a_bomb_is_refused_without_a_warning() -> None:
    huge = encoded(Image.new("1", (14_000, 14_000)))

    with pytest.raises(DataError, match=r"more than 178,956,970 pixels"):
        decode_image(huge)


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"", "empty"),
        (b"no image at all", "not an image file"),
        (encode_png(COLOUR)[:60], "cannot be decoded"),
        (encoded(Image.fromarray(np.tile(COLOUR, (30, 30, 1))), "JPEG")[:700], "cannot be decoded"),
    ],
)
def test_a_broken_file_is_refused_with_the_reason(data: bytes, reason: str) -> None:
    with pytest.raises(DataError, match=reason):
        decode_image(data)


def test_the_digest_covers_shape_and_pixels() -> None:
    flat = np.zeros((2, 8, 3), np.uint8)
    one = flat.copy()
    one[0, 0, 0] = 1

    assert pixel_digest(flat) == pixel_digest(flat.copy())
    assert len({pixel_digest(flat), pixel_digest(flat.reshape(4, 4, 3)), pixel_digest(one)}) == 3
