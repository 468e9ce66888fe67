from __future__ import annotations

import dataclasses
import io
import struct
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import matplotlib
import matplotlib.pyplot as plt
import numpy as np
import pytest
import soundfile
from fakes import REAL, halve, needs_real, write_audio, write_picture
from numpy.typing import NDArray
from PIL import Image

from parallel_tunes import schema
from parallel_tunes.audio import colour_maps, front_end, pictures
from parallel_tunes.audio.decode import AudioError
from parallel_tunes.audio.logmel import log_mel
from parallel_tunes.config import FeaturesConfig
from parallel_tunes.schema import UserError

DEFAULT = schema.build(FeaturesConfig, schema.defaults("features", "logmel"))
LIMIT = 1 << 30
Levels = NDArray[np.float32]


def features(**changed: Any) -> FeaturesConfig:
    return dataclasses.replace(DEFAULT, **{"kind": "picture", **changed})


def music(seed: int = 0, height: int = 128, width: int = 220) -> Levels:
    """Levels from 0 to 1, low frequencies first: noise that falls off upwards, with bars and beats in it."""
    rng = np.random.default_rng(seed)
    tilt = np.linspace(0.75, 0.25, height)[:, None]
    levels = tilt + 0.1 * rng.standard_normal((height, width))
    levels[rng.integers(0, height // 2, 6)] += 0.15
    levels[:, ::17] += 0.1
    return np.asarray(np.clip(levels, 0, 1), np.float32)


def draw(levels: Levels, colours: str) -> Image.Image:
    """Levels in the colours of a map, low frequencies at the bottom, a pixel a value."""
    name = colours.replace("grey", "gray")
    return Image.fromarray(matplotlib.colormaps[name](levels[::-1], bytes=True)[..., :3].copy())


def save(image: Image.Image, path: Path, **options: Any) -> Path:
    image.save(path, **options)
    return path


def read(path: Path, wanted: FeaturesConfig | None = None) -> Levels:
    return pictures.read(path, wanted or features(), max_bytes=LIMIT).levels


@pytest.mark.parametrize("colours", colour_maps.NAMES)
def test_colours_become_levels_again(colours: str, tmp_path: Path) -> None:
    """The mean error in dB, of 80: of noise, of which JPEG keeps least. Real log-mels lose half of it or less."""
    levels = music()
    image = draw(levels, colours)
    paths = {save(image, tmp_path / "a.png"): 0.2, save(image, tmp_path / "a.jpg", quality=75): 3.8}
    for path, most in paths.items():
        found = pictures.read(path, features(), max_bytes=LIMIT)
        assert found.colours == colours
        errors = 80 * (found.levels - levels)
        assert np.abs(errors).mean() < most
        assert abs(float(errors.mean())) < 0.2  # neither louder nor quieter


@pytest.mark.parametrize("name", ["magma", "grey"])
def test_a_map_can_be_named_forwards_and_reversed(name: str, tmp_path: Path) -> None:
    levels = music()
    path = save(draw(levels, f"{name}_r".replace("grey", "gray")), tmp_path / "a.png")
    np.testing.assert_allclose(read(path, features(picture_map=f"{name}_r")), levels, atol=0.02)
    np.testing.assert_allclose(read(path, features(picture_map=name)), 1 - levels, atol=0.02)
    other = "viridis" if name == "magma" else "magma"
    with pytest.raises(AudioError, match=f"drawn with {name}, not with features.picture_map={other}"):
        read(path, features(picture_map=other))


def test_reversed_maps_are_seen_from_many_pictures(tmp_path: Path) -> None:
    """A map and its reverse have the same colours: what tells them apart is that music is louder at low frequencies."""
    for colours, settled in (("viridis", "auto"), ("viridis_r", "auto_r")):
        paths = [save(draw(music(seed), colours), tmp_path / f"{colours}-{seed}.png") for seed in range(4)]
        found = pictures.settle(DEFAULT, paths, max_bytes=LIMIT)
        assert (found.kind, found.picture_map, found.picture_frames) == ("picture", settled, 220)
        np.testing.assert_allclose(read(paths[0], found), music(0), atol=0.02)
        assert pictures.settle(found, paths, max_bytes=LIMIT) == found
    with pytest.raises(UserError, match="features=waveform"):
        pictures.settle(dataclasses.replace(DEFAULT, kind="waveform"), paths, max_bytes=LIMIT)


def test_frames_are_decibels_low_bands_first(tmp_path: Path) -> None:
    levels = music()
    path = save(draw(levels, "magma"), tmp_path / "a.png")
    clip = front_end.extract(path, features(), max_bytes=LIMIT)
    assert clip.frames.shape == (220, 128)
    assert clip.frames.dtype == np.float16
    np.testing.assert_allclose(clip.frames.astype(np.float32).T, 80 * (levels - 1), atol=1.2)
    assert clip.source.duration_s == 30
    assert clip.db_sum == pytest.approx(clip.frames.astype(np.float64).sum())
    assert clip.db_square_sum == pytest.approx(np.square(clip.frames.astype(np.float64)).sum())
    upper = front_end.extract(path, features(picture_origin="upper", top_db=40.0), max_bytes=LIMIT).frames
    np.testing.assert_allclose(upper.astype(np.float32), clip.frames.astype(np.float32)[:, ::-1] / 2, atol=0.03)


@pytest.mark.parametrize("size", [(64, 500), (400, 96)])
def test_other_sizes_are_brought_to_one(size: tuple[int, int], tmp_path: Path) -> None:
    bands = np.linspace(1, 0, size[0], dtype=np.float32)[:, None] * np.ones(size[1], np.float32)
    path = save(draw(bands, "inferno"), tmp_path / "a.png")
    frames = front_end.extract(path, features(picture_frames=100, num_mels=64), max_bytes=LIMIT).frames
    assert frames.shape == (100, 64)
    centres = (np.arange(64) + 0.5) / 64
    np.testing.assert_allclose(frames.astype(np.float32).mean(0), -80 * centres, atol=1.5)
    assert np.ptp(frames.astype(np.float32), axis=0).max() < 0.1


@pytest.mark.parametrize(("colours", "ending"), [("magma", "jpg"), ("gray", "jpg"), ("gray_r", "png")])
def test_axes_titles_and_colour_bars_are_cropped(colours: str, ending: str, tmp_path: Path) -> None:
    levels = music()
    drawing, axes = plt.subplots(figsize=(6.4, 4.8))
    image = axes.imshow(levels, origin="lower", aspect="auto", cmap=colours, vmin=0, vmax=1, interpolation="nearest")
    axes.set(xlabel="time (s)", ylabel="frequency (Hz)", title="a spectrogram (dB)")
    drawing.colorbar(image)
    drawing.savefig(tmp_path / f"a.{ending}", dpi=150)
    plt.close(drawing)
    reverse = "_r" if colours.endswith("_r") else ""
    wanted = features(picture_frames=220, picture_map=f"auto{reverse}")
    frames = front_end.extract(tmp_path / f"a.{ending}", wanted, max_bytes=LIMIT).frames.astype(np.float32)
    truth = 80 * (levels.T - 1)
    assert np.corrcoef(frames.ravel(), truth.ravel())[0, 1] > 0.9
    assert np.abs(frames.mean(0) - truth.mean(0)).max() < 5


def test_quiet_white_of_a_grey_picture_is_no_margin(tmp_path: Path) -> None:
    levels = music()
    levels[90:] = 0  # white at the top, in grey reversed
    np.testing.assert_allclose(
        read(save(draw(levels, "gray_r"), tmp_path / "a.png"), features(picture_map="grey_r")), levels, atol=0.02
    )


def modes() -> dict[str, Image.Image]:
    """One picture in grey, or in the colours of a map, in the modes that JPEG and PNG have."""
    grey, coloured = draw(music(), "gray").convert("L"), draw(music(), "magma")
    deep = Image.fromarray(np.asarray(np.rint(music()[::-1] * 65535), np.uint16))
    padded = Image.new("RGBA", (260, 160), (0, 0, 0, 0))
    padded.paste(coloured.convert("RGBA"), (20, 12))
    return {
        "grey.png": grey, "grey.jpg": grey, "grey-alpha.png": grey.convert("LA"), "grey-16-bit.png": deep,
        "palette.png": coloured.quantize(256), "alpha.png": coloured.convert("RGBA"), "transparent-margins.png": padded,
        "cmyk.jpg": coloured.convert("CMYK"),
    }  # fmt: skip


def test_other_modes_are_read(tmp_path: Path) -> None:
    for name, image in modes().items():
        options: dict[str, Any] = {"quality": 90} if name.endswith("jpg") else {}
        levels = read(save(image, tmp_path / name, **options))
        truth = music()[1:-1, 1:-1] if name.startswith("transparent") else music()
        assert levels.shape == truth.shape, name
        assert np.abs(levels - truth).mean() < 0.025, name


def claim_size(path: Path, width: int, height: int) -> None:
    """A PNG whose header promises a picture of this size."""
    header = b"IHDR" + struct.pack(">2I5B", width, height, 8, 2, 0, 0, 0)
    body = b"IDAT" + zlib.compress(bytes(1 << 16))
    chunks = [struct.pack(">I", len(part) - 4) + part + struct.pack(">I", zlib.crc32(part)) for part in (header, body)]
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + b"".join(chunks))


def photograph() -> Image.Image:
    y, x = np.mgrid[:128, :128].astype(np.float32)
    return Image.fromarray(np.stack([2 * x, 2 * y, 255 - x - y], -1).astype(np.uint8))


FAULTS: dict[str, tuple[str, Callable[[Path], object]]] = {
    "empty.png": ("empty", lambda path: path.write_bytes(b"")),
    "text.png": ("neither JPEG nor PNG", lambda path: path.write_text("no picture\n" * 50)),
    "sound.jpg": ("neither JPEG nor PNG", lambda path: soundfile.write(path, np.zeros(999), 22050, format="WAV")),
    "gif.png": ("neither JPEG nor PNG", lambda path: save(photograph(), path, format="GIF")),
    "truncated.jpg": ("truncated", lambda path: halve(save(draw(music(), "magma"), path))),
    "truncated.png": ("truncated", lambda path: halve(save(draw(music(), "magma"), path))),
    "large.png": ("90000 × 900 pixels are over the limit", lambda path: claim_size(path, 90000, 900)),
    "bomb.png": ("over the limit", lambda path: claim_size(path, 1 << 30, 1 << 30)),
    "small.png": ("too small: 12 × 12", lambda path: save(draw(music(0, 12, 12), "magma"), path)),
    "black.png": ("silent", lambda path: save(Image.new("RGB", (200, 200)), path)),
    "white.png": ("silent", lambda path: save(Image.new("RGB", (200, 200), "white"), path)),
    "photograph.jpg": ("its colours are of none", lambda path: save(photograph(), path)),
    "jet.png": ("its colours are of none", lambda path: save(draw(music(), "jet"), path)),
    "folder.png": ("not a regular file", Path.mkdir),
    "dangling.png": ("cannot be read", lambda path: path.symlink_to("nowhere.png")),
}


def test_bad_files_give_a_reason(tmp_path: Path) -> None:
    for name, (reason, spoil) in FAULTS.items():
        spoil(tmp_path / name)
        with pytest.raises(AudioError) as caught:  # and no warning, which pytest makes an error
            front_end.extract(tmp_path / name, features(), max_bytes=LIMIT)
        assert reason in str(caught.value), name


def test_large_files_are_refused_unread(tmp_path: Path) -> None:
    path = save(draw(music(), "magma"), tmp_path / "a.png")
    with pytest.raises(AudioError, match="over the limit of 0 MiB"):
        front_end.extract(path, features(), max_bytes=1000)


def test_damaged_bytes_never_raise_anything_else() -> None:
    """Every byte may be wrong: the answer is a picture or a reason."""
    rng = np.random.default_rng(0)
    for kind in ("PNG", "JPEG"):
        stream = io.BytesIO()
        draw(music(0, 40, 40), "magma").save(stream, kind)
        whole = np.frombuffer(stream.getvalue(), np.uint8)
        for _ in range(50):
            spoilt = whole.copy()
            spoilt[rng.integers(0, len(whole), 8)] = rng.integers(0, 256, 8)
            try:
                pixels = pictures.decode(spoilt.tobytes())
            except AudioError:
                continue
            assert pixels.ndim == 3


def test_pictures_and_audio_never_meet(tmp_path: Path) -> None:
    changed: list[dict[str, Any]] = [
        {},
        {"num_mels": 64},
        {"top_db": 60.0},
        {"picture_s": 10.0},
        {"picture_frames": 99},
        {"picture_map": "auto_r"},
    ]
    prints = [front_end.fingerprint(features(**one)) for one in [*changed, {"picture_origin": "upper"}]]
    assert len({*prints, front_end.fingerprint(DEFAULT)}) == len(prints) + 1
    assert front_end.fingerprint(features(hop_length=99)) == prints[0]  # no transform is made
    assert front_end.fingerprint(dataclasses.replace(DEFAULT, picture_s=9.0)) == front_end.fingerprint(DEFAULT)
    sound = write_audio(tmp_path / "a.wav", np.sin(np.arange(30000, dtype=np.float32)))
    with pytest.raises(AudioError, match="neither JPEG nor PNG"):
        front_end.extract(sound, features(), max_bytes=LIMIT)
    write_picture(tmp_path / "b.png")
    with pytest.raises(AudioError, match="no audio"):
        front_end.extract(tmp_path / "b.png", DEFAULT, max_bytes=LIMIT)


@needs_real
def test_real_pictures_are_what_their_audio_sounds_like() -> None:
    """All decode, as magma; and where the clip is there too, its own log-mel agrees but for which frame a pixel shows."""
    paths = sorted((REAL / "gtzan_spectrograms").glob("*/*.jpg"))
    assert len(paths) == 710
    settled = pictures.settle(DEFAULT, paths, max_bytes=LIMIT)
    assert (settled.picture_map, settled.picture_frames) == ("auto", 223)
    found = [pictures.read(path, settled, max_bytes=LIMIT) for path in paths]
    assert {picture.colours for picture in found} == {"magma"}
    assert {picture.levels.shape for picture in found} == {(221, 223)}
    assert np.mean([np.ptp(picture.levels) for picture in found]) > 0.9
    for track in ("blues.00004", "hiphop.00002", "rock.00003"):
        label = track.split(".")[0]
        samples, rate_hz = soundfile.read(REAL / "gtzan_mini" / label / f"{track}.wav", dtype="float32")
        audio = log_mel(samples, sample_rate_hz=rate_hz)
        frames = front_end.extract(
            REAL / "gtzan_spectrograms" / label / f"{track}.jpg", settled, max_bytes=LIMIT
        ).frames
        num = int(len(samples) / rate_hz / settled.picture_s * len(frames)) - 1
        centres = ((np.arange(num) + 0.5) / len(frames) * (1 + 30 * rate_hz // 512)).astype(int)
        truth, seen = (audio - audio.max())[:, centres], frames[:num].T.astype(np.float32)
        assert np.corrcoef(truth.ravel(), seen.ravel())[0, 1] > 0.96
        assert np.abs(truth - seen).mean() < 3
