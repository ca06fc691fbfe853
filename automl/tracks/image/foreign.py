"""Kinds of files that lie where images should, told by their first bytes."""

from __future__ import annotations

_HEAD_BYTES = 512
_BEGINNINGS = (  # as libmagic and the formats' own specifications have them
    (b"version https://git-lfs", "a pointer of Git LFS, whose content was not fetched"),
    (b"\x89PNG\r\n\x1a\n", "a damaged PNG file"),
    (b"\xff\xd8\xff", "a damaged JPEG file"),
    (b"GIF8", "a damaged GIF file"),
    (b"BM", "a damaged BMP file, or one of a rare kind"),
    (b"II*\x00", "a damaged TIFF file, or one of a rare kind"),
    (b"MM\x00*", "a damaged TIFF file, or one of a rare kind"),
    (b"II+\x00", "a BigTIFF file"),
    (b"MM\x00+", "a BigTIFF file"),
    (b"%PDF-", "a PDF file"),
    (b"PK\x03\x04", "a zip archive"),
    (b"\x1f\x8b", "a gzip file"),
    (b"8BPS", "a Photoshop file"),
    (b"\x93NUMPY", "a NumPy array"),
    (b"\x00\x00\x00\x0cjP  ", "a JPEG 2000 file"),
    (b"\xff\x4f\xff\x51", "a JPEG 2000 file"),
    (b"\xff\x0a", "a JPEG XL file"),
    (b"\x00\x00\x00\x0cJXL ", "a JPEG XL file"),
    (b"\x00\x00\x01\x00", "an icon (ICO)"),
    (b"\x76\x2f\x31\x01", "an OpenEXR file"),
    (b"DDS ", "a DDS texture"),
    (b"PAR1", "a Parquet file"),
    (b"\x00\x05\x16\x07", "a resource fork of macOS (AppleDouble)"),
)
_BRANDS = {  # of ISO base media files
    b"heic": "a HEIC image", b"heix": "a HEIC image", b"hevc": "a HEIC image",
    b"mif1": "a HEIF image", b"msf1": "a HEIF image",
    b"avif": "an AVIF image", b"avis": "an AVIF image", b"crx ": "a raw image of Canon",
}  # fmt: skip
_TEXTS = (
    (b"<!doctype html", "a web page, as failed downloads leave one"),
    (b"<html", "a web page, as failed downloads leave one"),
    (b"<svg", "an SVG drawing"),
    (b"<?xml", "an XML document"),
    (b"<error>", "an XML document"),
    (b"{", "a JSON document"),
)


def kind_of(data: bytes) -> str:
    """Return what a file seems to be that no image decoder knows; "" if that is unknown.

    Args:
        data: the file, which is not empty.
    """
    head = data[:_HEAD_BYTES]
    for beginning, kind in _BEGINNINGS:
        if head.startswith(beginning):
            return kind
    if head[4:8] == b"ftyp":
        return _BRANDS.get(head[8:12], "a video")
    if head.startswith(b"RIFF"):
        return "a damaged WEBP file" if head[8:12] == b"WEBP" else "a sound or a video"
    if head[128:132] == b"DICM":
        return "a DICOM file"
    if head[257:262] == b"ustar":
        return "a tar archive"
    text = head.removeprefix(b"\xef\xbb\xbf").lstrip().lower()
    for beginning, kind in _TEXTS:
        if text.startswith(beginning):
            return "an SVG drawing" if b"<svg" in text else kind
    return "nothing but zeros" if not data.strip(b"\x00") else ""
