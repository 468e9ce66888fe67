"""Spectrogram pictures to levels: decoded within bounds, margins cropped, colours inverted, brought to one size."""

from __future__ import annotations

import io
import warnings
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from parallel_tunes import files
from parallel_tunes.audio import colour_maps
from parallel_tunes.audio.decode import AudioError, BadSamplesError, BeyondBoundsError, TruncatedError, check_file
from parallel_tunes.config import FeaturesConfig
from parallel_tunes.files import digest_json
from parallel_tunes.schema import UserError, to_plain

VERSION = 1  # raised whenever the same settings would give other numbers
MAX_PIXELS = 1 << 25  # most that are decoded, about 100 MB
MIN_SIDE = 16  # pixels of height and width, margins left out
FARTHEST = {"grey": 6.0}  # mean distance from a map's curve, in steps of 8-bit colour: JPEG blurs no colour into grey
FARTHEST_COLOURED = 32.0  # JPEGs of quality 30 lie up to 27 away, other maps from 33 (hot) to 90 (jet)
WHITE = 245  # of 255, in all three channels
FLATTEST = 0.02  # range of levels, as a share of the whole, below which nothing was drawn
NUM_LOOKED_AT = 24
UPSIDE_DOWN = -0.05  # lower half's level less the upper's, as a share of the whole


class NotPictureError(AudioError):
    """No picture, or of no spectrogram."""


@dataclass(frozen=True)
class Picture:
    """A spectrogram picture that was read.

    Attributes:
        hash: of the file's bytes.
        colours: the map it was drawn with.
        levels: from 0, the quietest colour, to 1; shape (height, width), low frequencies first.
    """

    hash: str
    colours: str
    levels: NDArray[np.float32]


def fingerprint(features: FeaturesConfig) -> str:
    """Names what is made of pictures: equal fingerprints mean equal features."""
    settings = {name: value for name, value in to_plain(features).items() if name.startswith("picture_")}
    return digest_json({"pictures": VERSION, "mels": features.num_mels, "top_db": features.top_db, **settings})[:16]


def settle(features: FeaturesConfig, paths: Sequence[Path], *, max_bytes: int) -> FeaturesConfig:
    """Features for a set of pictures, some of which are looked at for what was left open.

    `picture_frames` becomes the median width; `picture_map=auto` becomes `auto_r` where the pictures, most of them, are
    brighter above than below: music is louder at low frequencies, and a map has the colours of the same one reversed.

    Raises:
        UserError: waveforms or descriptors are wanted of them.
    """
    if features.kind in ("waveform", "descriptors"):
        raise UserError(f"features={features.kind}: these tracks are pictures, which hold spectrograms; leave it out")
    if features.kind == "picture" and features.picture_frames:  # a model's, settled when it was trained
        return features
    features = replace(features, kind="picture")
    widths, tilts = [], []
    for path in paths[:: max(len(paths) // NUM_LOOKED_AT, 1)]:
        try:
            levels = read(path, features, max_bytes=max_bytes).levels
        except AudioError:  # it will be listed with its reason
            continue
        middle = len(levels) // 2
        widths.append(levels.shape[1])
        tilts.append(float(levels[:middle].mean() - levels[middle:].mean()))
    if not widths:
        return features
    reverse = features.picture_map == "auto" and float(np.median(tilts)) < UPSIDE_DOWN
    return replace(
        features,
        picture_frames=features.picture_frames or int(np.median(widths)),
        picture_map="auto_r" if reverse else features.picture_map,
    )


def describe(features: FeaturesConfig) -> str:
    """What pictures are taken for, in a line."""
    colours = "darker is louder" if features.picture_map.endswith("_r") else "brighter is louder"
    size = f"{features.num_mels} bands × {features.picture_frames} frames for {features.picture_s:g} s"
    return f"pictures of spectrograms: {size}, {colours} (features.picture_map={features.picture_map})"


def extract(path: Path, features: FeaturesConfig, *, max_bytes: int) -> tuple[str, NDArray[np.float16]]:
    """The hash of a picture's file, and its levels, shape (num_frames, num_mels), float16, dB.

    Raises:
        AudioError: the file gives no features; the message says why.
    """
    picture = read(path, features, max_bytes=max_bytes)
    size = features.num_mels, features.picture_frames or picture.levels.shape[1]
    decibels = (resize(picture.levels, *size) - 1) * np.float32(features.top_db)
    return picture.hash, np.ascontiguousarray(decibels.T, np.float16)


def read(path: Path, features: FeaturesConfig, *, max_bytes: int) -> Picture:
    """Decode a picture and invert its colours.

    Raises:
        AudioError: no picture, beyond the bounds, truncated, one colour all over, or drawn with no map that is known.
    """
    check_file(path, max_bytes=max_bytes)
    try:
        data = path.read_bytes()
    except OSError as error:
        raise AudioError(f"cannot be read: {error.strerror or error}") from error
    pixels = crop_margins(decode(data))
    if min(pixels.shape[:2]) < MIN_SIDE:
        raise BeyondBoundsError(
            f"too small: {pixels.shape[1]} × {pixels.shape[0]} pixels, {MIN_SIDE} a side are needed"
        )
    name, is_reversed = features.picture_map.removesuffix("_r"), features.picture_map.endswith("_r")
    found, distance = colour_maps.recognise(pixels) if pixels.dtype == np.uint8 else ("grey", 0.0)
    if distance > FARTHEST.get(found, FARTHEST_COLOURED):
        known = ", ".join(colour_maps.NAMES)
        raise NotPictureError(f"its colours are of none of the maps {known}: {distance:.0f} steps from {found}")
    if name not in ("auto", found):
        raise NotPictureError(f"drawn with {found}, not with features.picture_map={features.picture_map}")
    levels = colour_maps.invert(pixels, found) if pixels.dtype == np.uint8 else pixels[..., 0]
    if float(np.ptp(levels)) < FLATTEST:
        raise BadSamplesError("silent: one colour all over")
    if is_reversed:
        levels = 1 - levels
    upright = levels if features.picture_origin == "upper" else levels[::-1]
    return Picture(files.digest_bytes(data), found, np.ascontiguousarray(upright, np.float32))


def decode(data: bytes) -> NDArray[Any]:
    """The pixels of a JPEG or PNG, shape (height, width, 3): uint8, or float32 from 0 to 1 where they are grey of 16 bits.

    Raises:
        AudioError: it is neither, or truncated, or larger than is read.
    """
    from PIL import Image

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of what is bounded below
        try:
            image = Image.open(io.BytesIO(data), formats=("JPEG", "PNG"))
        except Image.DecompressionBombError as error:
            raise BeyondBoundsError(f"over the limit of {MAX_PIXELS / 1e6:.0f} million pixels") from error
        except Exception as error:  # a damaged header can make Pillow raise anything
            raise NotPictureError("no picture that can be decoded (neither JPEG nor PNG)") from error
        with image:
            if image.width * image.height > MAX_PIXELS:
                size = f"{image.width} × {image.height} pixels"
                raise BeyondBoundsError(f"{size} are over the limit of {MAX_PIXELS / 1e6:.0f} million")
            try:
                return _to_pixels(image)
            except Exception as error:  # OSError, SyntaxError, ValueError, struct.error …
                raise TruncatedError(f"truncated or damaged ({error})") from error


def _to_pixels(image: Any) -> NDArray[Any]:
    """As `decode` gives them, whatever mode the picture is in; what is transparent shows white."""
    from PIL import Image

    if image.mode.startswith("I"):  # grey of 16 bits
        grey = np.asarray(image, np.float32) / 65535
        return np.repeat(np.clip(grey, 0, 1)[..., None], 3, axis=2)
    if image.mode in ("RGBA", "LA", "PA") or "transparency" in image.info:
        over = image.convert("RGBA")
        image = Image.alpha_composite(Image.new("RGBA", over.size, "white"), over)
    return np.asarray(image.convert("RGB"))


def crop_margins(pixels: NDArray[Any]) -> NDArray[Any]:
    """The drawing itself: the longest run of columns, and of rows, that are not mostly white.

    So go margins, axis labels, titles and colour bars; where there was a margin, the frame's line goes too. A grey picture
    may be white where it is loud, or quiet: its margins must lie on all four sides.
    """
    red, green, blue = (pixels >= (WHITE if pixels.dtype == np.uint8 else WHITE / 255)).transpose(2, 0, 1)
    white = red & green & blue
    rows, columns = slice(0, white.shape[0]), slice(0, white.shape[1])
    for _ in range(2):  # labels beside the drawing weigh less the second time
        columns = _longest_run(white[rows].mean(0) < 0.5)
        if columns.start == columns.stop:
            return pixels
        rows = _longest_run(white[:, columns].mean(1) < 0.5)
        if rows.start == rows.stop:
            return pixels
    sides = (rows.start > 0, rows.stop < white.shape[0], columns.start > 0, columns.stop < white.shape[1])
    if not any(sides):
        return pixels
    if not all(sides) and not np.any(np.ptp(pixels[rows, columns][::4, ::4].astype(np.float32), axis=-1) > 1):
        return pixels
    line = 1 + max(white.shape) // 500  # matplotlib's frame is 0.8 points of 6.4 inches, half of it inside
    above, below, before, after = (line * side for side in sides)
    return pixels[rows.start + above : rows.stop - below, columns.start + before : columns.stop - after]


def _longest_run(is_drawn: NDArray[np.bool_]) -> slice:
    edges = np.flatnonzero(np.diff(np.concatenate([[0], is_drawn.astype(np.int8), [0]])))
    if not edges.size:
        return slice(0, 0)
    starts, stops = edges[::2], edges[1::2]
    longest = int(np.argmax(stops - starts))
    return slice(int(starts[longest]), int(stops[longest]))


def resize(levels: NDArray[np.float32], height: int, width: int) -> NDArray[np.float32]:
    """Levels at another size: means over what falls together where it is smaller, linear between where it is larger."""
    from PIL import Image

    for target in ((width, len(levels)), (width, height)):
        image = Image.fromarray(levels)
        grows = target[0] > image.width or target[1] > image.height
        resampling = Image.Resampling.BILINEAR if grows else Image.Resampling.BOX
        levels = np.asarray(image if target == image.size else image.resize(target, resampling), np.float32)
    return levels
