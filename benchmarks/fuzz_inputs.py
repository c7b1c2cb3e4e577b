"""Make damaged shards and images: each follows from a number alone."""

import gzip
import io
import random
import struct
import tarfile
import zlib

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from PIL import Image, features

from capfilt.shards.headers import header_sum

NUMBERS = (0, 1, 0x7F, 0xFF, 0x7FFF, 0xFFFF, 0x7FFFFFFF, 0xFFFFFFFF)
FORMS = [
    form
    for form in ("JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF", "PPM", "AVIF", "JPEG2000")
    if features.check({"AVIF": "avif", "JPEG2000": "jpg_2000"}.get(form, "jpg"))
]


def make_case(number: int) -> tuple[str, bytes]:
    """Return the name and the bytes of a damaged file; it is an image's if its name begins so."""
    draw = random.Random(number)
    kind = draw.choice(("image", "image", "tar", "tar", "tgz", "parquet", "jsonl", "csv"))
    if kind == "image":
        form = draw.choice(FORMS)
        data = damaged(picture(draw, form), draw)
        data = mended_png(data) if form == "PNG" and draw.random() < 0.7 else data
        return f"image.{form.lower()}", data
    if kind in ("tar", "tgz"):
        data = damaged(tar(draw), draw)
        data = mended_tar(data) if draw.random() < 0.7 else data
        if kind == "tgz":
            data = gzip.compress(data, mtime=0)
            data = damaged(data, draw) if draw.random() < 0.5 else data
        return f"0.{kind}", data
    make = {"parquet": parquet, "jsonl": jsonl, "csv": csv}[kind]
    return f"0.{kind}", damaged(make(draw), draw)


def picture(draw: random.Random, form: str) -> bytes:
    """Return an image of noise in one of the modes and ways that a format has."""
    modes = {"JPEG": ("RGB", "L", "CMYK"), "PNG": ("RGB", "RGBA", "L", "P", "I;16", "1", "LA"), "GIF": ("P", "L")}
    modes |= {"TIFF": ("RGB", "L", "CMYK", "I;16", "F", "1"), "WEBP": ("RGB", "RGBA"), "BMP": ("RGB", "L", "1", "P")}
    mode = draw.choice(modes.get(form, ("RGB",)))
    width, height = draw.randint(1, 80), draw.randint(1, 80)
    noise = np.random.default_rng(draw.randrange(1 << 30)).integers(0, 255, (height, width, 3), dtype=np.uint8)
    image = (
        Image.fromarray(noise).convert("I").convert(mode) if mode == "I;16" else Image.fromarray(noise).convert(mode)
    )
    options: dict[str, object] = {}
    if form == "JPEG":
        options = {
            "progressive": draw.random() < 0.3,
            "quality": draw.choice((10, 90)),
            "exif": draw.random() < 0.3 and exif(),
        }
    if form == "TIFF":
        options = {"compression": draw.choice((None, "tiff_lzw", "tiff_deflate", "packbits"))}
    if form in ("GIF", "WEBP") and draw.random() < 0.3:
        options = {"save_all": True, "append_images": [image] * 2}
    buffer = io.BytesIO()
    image.save(buffer, form, **{name: value for name, value in options.items() if value})
    return buffer.getvalue()


def exif() -> bytes:
    found = Image.Exif()
    found[0x0112] = 6
    return found.tobytes()


def members(draw: random.Random) -> list[tuple[str, bytes]]:
    texts = [b"a dog", b"", b"caf\xe9", b"<b>x</b>" * 50, "\u202etxet".encode()]
    jsons = [
        b'{"caption": NaN, "url": "http://x"}',
        b"[1e999]",
        b"[" * 3000,
        b'{"a": ' + b"9" * 6000 + b"}",
        b'"\\ud800"',
    ]
    names = ["0", "1", "../x", "/abs", "a" * 200, "d/" * 60 + "x", "\u00e9\u202e", "1"]
    made = []
    for name in draw.sample(names, draw.randint(1, 5)):
        made += [
            (f"{name}.jpg", draw.randbytes(draw.choice((0, 1, 511, 512, 3000)))),
            (f"{name}.txt", draw.choice(texts)),
        ]
        made += [(f"{name}.json", draw.choice(jsons))] if draw.random() < 0.5 else []
    return made


def tar(draw: random.Random) -> bytes:
    """Return a tar in one of its three formats, with links and folders among the files."""
    buffer = io.BytesIO()
    form = draw.choice((tarfile.USTAR_FORMAT, tarfile.GNU_FORMAT, tarfile.PAX_FORMAT))
    with tarfile.open(fileobj=buffer, mode="w", format=form) as file:
        for name, data in members(draw):
            info = tarfile.TarInfo(
                name if form != tarfile.USTAR_FORMAT else name[-90:].encode("ascii", "replace").decode()
            )
            if draw.random() < 0.1:
                info.type = draw.choice(
                    (tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.CHRTYPE, tarfile.DIRTYPE, tarfile.FIFOTYPE)
                )
                info.linkname = "/etc/passwd"
                file.addfile(info)
                continue
            info.size = len(data)
            file.addfile(info, io.BytesIO(data))
    return buffer.getvalue()


def parquet(draw: random.Random) -> bytes:
    rows = draw.randint(0, 40)
    sink = pa.BufferOutputStream()
    table = pa.table({"jpg": [draw.choice((b"x" * 300, None)) for _ in range(rows)], "caption": ["a"] * rows}).cast(
        pa.schema({"jpg": pa.binary(), "caption": pa.string()})
    )
    pq.write_table(table, sink, compression=draw.choice(("zstd", "snappy", "none")), row_group_size=draw.randint(1, 20))
    return bytes(sink.getvalue().to_pybytes())


def jsonl(draw: random.Random) -> bytes:
    lines = [
        '{"image": "a.jpg", "caption": "a"}',
        '{"image": "../../etc/passwd"}',
        '{"image": "x", "n": [NaN, 1e999]}',
        "[" * 3000,
    ]
    return "\n".join(draw.choices(lines, k=draw.randint(1, 9))).encode()


def csv(draw: random.Random) -> bytes:
    lines = ['a.jpg,"a ""dog"""', "b.jpg,b", '"open', "/etc/passwd,x", "a.jpg,x,y", "\0,\0"]
    return "\n".join(["image,caption", *draw.choices(lines, k=draw.randint(1, 9))]).encode()


def damaged(data: bytes, draw: random.Random) -> bytes:
    """Return data after some of what befalls files, and of what people do to them."""
    changed = bytearray(data)
    for _ in range(draw.choice((0, 1, 1, 2, 4, 16, 64))):
        at = draw.randrange(len(changed) + 1)
        match draw.randrange(6):
            case 0 if at < len(changed):
                changed[at] = draw.randrange(256)
            case 1:
                order = draw.choice("<>")
                changed[at : at + 4] = struct.pack(f"{order}I", draw.choice(NUMBERS))
            case 2:
                del changed[at : at + draw.choice((1, 7, 512, 5000))]
            case 3:
                changed[at:at] = draw.randbytes(draw.choice((1, 7, 512)))
            case 4:
                start = draw.randrange(len(changed) + 1)
                changed[at:at] = changed[start : start + draw.choice((16, 512, 4096))]
            case 5:
                changed[at : at + 12] = draw.choice((b"7" * 12, b"\x80" + b"\xff" * 11, b"0" * 12, b"-0000000001 "))
    return bytes(changed[: 1 << 20])


def mended_tar(data: bytes) -> bytes:
    """Return a tar whose headers have the right checksums again, so that what they say is believed."""
    blocks = bytearray(data)
    for at in range(0, len(blocks) - 511, 512):
        block = bytes(blocks[at : at + 512])
        if block[257:262] == b"ustar":
            blocks[at + 148 : at + 156] = b"%06o\0 " % header_sum(block)
    return bytes(blocks)


def mended_png(data: bytes) -> bytes:
    """Return a PNG whose chunks have the right checksums again."""
    chunks, at = bytearray(data), 8
    while at + 12 <= len(chunks):
        end = at + 8 + int.from_bytes(chunks[at : at + 4], "big")
        if end + 4 > len(chunks):
            break
        chunks[end : end + 4] = struct.pack(">I", zlib.crc32(chunks[at + 4 : end]))
        at = end + 4
    return bytes(chunks)
