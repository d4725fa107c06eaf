"""Good values of every kind that the decoder reads, and some that it refuses: what the damage begins with. Small."""

from __future__ import annotations

import io
import random
from dataclasses import dataclass

import pyarrow as pa
from PIL import Image

from adawise.decode.arrow_batch import encode_batch
from tests.hostile import arrow, picture, png_chunk
from tools.fuzz import parts
from tools.fuzz.parts import Format

_SIZE = (24, 18)


@dataclass(frozen=True)
class Corpus:
    """Values by format; `images` are all of them but the Arrow ones."""

    formats: tuple[tuple[Format, tuple[bytes, ...]], ...]
    batches: tuple[bytes, ...]

    @property
    def images(self) -> tuple[bytes, ...]:
        """Every image of every format."""
        return tuple(value for _, values in self.formats for value in values)


def corpus(seed: int = 0) -> Corpus:
    """The same values for the same seed."""
    rng = random.Random(seed)
    formats = (
        (parts.JPEG, _jpegs(rng)),
        (parts.PNG, _pngs(rng)),
        (parts.WEBP, _webps(rng)),
        (parts.BMP, tuple(picture(rng, "BMP", mode, _SIZE) for mode in ("RGB", "P", "L", "1", "RGBA"))),
    )
    return Corpus(formats, _batches([values[0] for _, values in formats]))


def _saved(image: Image.Image, codec: str, **options: object) -> bytes:
    out = io.BytesIO()
    image.save(out, codec, **options)
    return out.getvalue()


def _opened(rng: random.Random, mode: str = "RGB") -> Image.Image:
    return Image.open(io.BytesIO(picture(rng, "TIFF", mode, _SIZE)))


def _jpegs(rng: random.Random) -> tuple[bytes, ...]:
    image = _opened(rng)
    exif = Image.Exif()
    exif[0x0112] = 6
    return (
        _saved(image, "JPEG"),
        _saved(image, "JPEG", progressive=True),
        _saved(image, "JPEG", subsampling=0, restart_marker_blocks=1),
        _saved(image, "JPEG", exif=exif, comment=b"hello", icc_profile=bytes(40), optimize=True),
        _saved(_opened(rng, "L"), "JPEG"),
        _saved(_opened(rng, "CMYK"), "JPEG"),
    )


def _pngs(rng: random.Random) -> tuple[bytes, ...]:
    plain = [picture(rng, "PNG", mode, _SIZE) for mode in ("RGB", "RGBA", "P", "LA", "1", "L")]
    deep = _saved(Image.new("I;16", _SIZE, 40_000), "PNG")
    frames = [_opened(rng) for _ in range(2)]
    animated = _saved(frames[0], "PNG", save_all=True, append_images=frames[1:])
    keyed = _saved(_opened(rng, "P"), "PNG", transparency=3)
    text = plain[0][:33] + png_chunk(b"tEXt", b"key\0text") + png_chunk(b"gAMA", b"\0\0\xb1\x8f") + plain[0][33:]
    return (*plain, deep, animated, keyed, text)


def _webps(rng: random.Random) -> tuple[bytes, ...]:
    image, clear = _opened(rng), _opened(rng, "RGBA")
    animated = _saved(image, "WEBP", save_all=True, append_images=[_opened(rng)])
    return (
        _saved(image, "WEBP"),
        _saved(image, "WEBP", lossless=True),
        _saved(clear, "WEBP"),
        _saved(clear, "WEBP", lossless=True, exif=b"Exif\0\0II*\0"),
        animated,
    )


def _batches(images: list[bytes]) -> tuple[bytes, ...]:
    two = images[:2]
    plain, texts = pa.array(two, pa.binary()), pa.array(["cam-1", None])
    times = pa.array([1, None], pa.timestamp("ms", "Europe/Berlin"))
    out = io.BytesIO()
    batch = pa.record_batch({"image": plain, "label": texts.dictionary_encode()})
    with pa.ipc.new_stream(out, batch.schema) as writer:
        writer.write_batch(batch)
        writer.write_batch(batch.slice(1))
    return (
        encode_batch(two, stream_id="cam-1", captured_at_us=[1, 2], labels=["a", None], meta={"m": ["1", "2"]}),
        encode_batch(images, frame_ids=["a", "b", "c", None]),
        encode_batch([b"BM"] * 9),
        arrow({"image": plain.cast(pa.binary_view()), "stream_id": texts.dictionary_encode(), "captured_at": times}),
        arrow({"image": plain.cast(pa.large_binary()), "label": texts.cast(pa.string_view()), "frame_id": texts}),
        arrow({"image": plain, "meta_n": pa.array([1.5, None]), "meta_b": pa.array([True, None]), "x": pa.nulls(2)}),
        arrow({"image": plain, **_odd_columns()}),
        out.getvalue(),
        arrow({"image": plain}, "lz4"),
        arrow({"image": plain}, "zstd"),
        arrow({"image": plain}, codec="file"),
    )


def _odd_columns() -> dict[str, pa.Array]:
    """Columns that nobody reads, but whose metadata Arrow walks through."""
    nested = pa.array([[[1]], []], pa.list_(pa.list_(pa.int32())))
    return {
        "list": nested,
        "struct": pa.array([{"a": 1, "b": "x"}, None]),
        "map": pa.array([[("k", 1)], []], pa.map_(pa.string(), pa.int64())),
        "runs": pa.RunEndEncodedArray.from_arrays(pa.array([2], pa.int32()), pa.array(["x"])),
        "union": pa.UnionArray.from_sparse(pa.array([0, 1], pa.int8()), [pa.array([1, 2]), pa.array(["a", "b"])]),
        "meta_uuid": pa.ExtensionArray.from_storage(pa.uuid(), pa.array([bytes(16)] * 2, pa.binary(16))),
        "meta_json": pa.ExtensionArray.from_storage(pa.json_(), pa.array(["{}", "[]"])),
        "fixed": pa.array([[1, 2], [3, 4]], pa.list_(pa.int8(), 2)),
        "view": pa.array([[1], [2]], pa.list_view(pa.int8())),
        "decimal": pa.array([1, 2], pa.decimal128(9, 2)),
    }
