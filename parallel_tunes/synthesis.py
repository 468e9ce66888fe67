"""The job synth: a corpus of audio."""

from __future__ import annotations

from functools import partial

from parallel_tunes.config_synth import SynthJob
from parallel_tunes.data import encoding, synthetic, synthetic_mixes
from parallel_tunes.parallel.mesh import Mesh
from parallel_tunes.run import Run
from parallel_tunes.session import Facts


def synth(cfg: SynthJob, mesh: Mesh, run: Run) -> Facts:
    """Write a corpus: <label>/<artist>-<track>.<format> and tracks.csv."""
    del mesh
    encoding.check_rate(cfg.format, cfg.sample_rate_hz)
    pieces = synthetic_mixes.list_corpus(cfg.num_artists, cfg.tracks_per_artist, cfg.format, cfg.labels_per_track)
    traits = synthetic.Traits(cfg.blend, cfg.artist_strength, cfg.track_strength)
    render = partial(
        synthetic.render_track,
        seed=cfg.seed, duration_s=cfg.duration_s, sample_rate_hz=cfg.sample_rate_hz, traits=traits,
    )  # fmt: skip
    audio_s, num_labels = len(pieces) * cfg.duration_s, len(synthetic.GENRES)
    run.log(f"{len(pieces)} tracks of {cfg.duration_s:g} s by {cfg.num_artists} artists in each of {num_labels} genres")
    with run.progress("synth", len(pieces)) as bar:
        for piece in pieces:
            if not (run.folder / piece.path).exists():
                samples = synthetic_mixes.mix([render(*part) for part in piece.parts])
                if cfg.channels == 2:
                    samples = encoding.widen(samples, (cfg.seed, *piece.parts[0][:2]), cfg.sample_rate_hz)
                run.write_bytes(piece.path, encoding.encode(samples, cfg.format, cfg.sample_rate_hz))
            bar.update()
    rows = "".join(f"{piece.path},{piece.label},{piece.artist}\n" for piece in pieces)
    run.write_bytes(synthetic.LIST, f"path,label,artist\n{rows}".encode())
    return {"metrics": {"num_tracks": len(pieces), "num_labels": num_labels, "audio_s": audio_s}}
