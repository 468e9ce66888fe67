"""The keys of what is learnt, by which model and how: conf/task/, conf/model/, conf/train/ and conf/augment/."""

from __future__ import annotations

from dataclasses import dataclass

from parallel_tunes.schema import key


@dataclass(frozen=True, kw_only=True)
class TaskConfig:
    name: str = key("what is learnt", choices=("genre",))
    crop_s: float | None = key(
        "length of a training crop and of an evaluation window, seconds; default 3, and a quarter of what pictures hold",
        low=0.05,
    )
    window_s: float | None = key(
        "model.texture: length of what its statistics are of, and of an evaluation window; networks see it in crops; "
        "default crop_s, and of pictures, unless crop_s is given, all they hold",
        low=0.05,
    )
    overlap: float = key("overlap of neighbouring evaluation windows, as a share of the window", low=0, high=0.95)
    multi_label: bool = key(
        "a track may have several labels, a|b in the list or as the folder's name; each is found by itself"
    )


@dataclass(frozen=True, kw_only=True)
class ModelConfig:
    name: str = key(
        "what the architecture is called",
        choices=("residual_cnn", "genre_cnn", "light_cnn", "crnn", "attention_cnn", "seed_three", "seed_four"),
    )
    widths: tuple[int, ...] = key("channels of the convolution blocks", low=1, high=4096)
    num_residual: int = key("residual units in each stage; 0: plain convolutions", low=0, high=16)
    head: str = key(
        "what sums up the maps: mean_max over time and frequency, attention over time, or a recurrent layer",
        choices=("mean_max", "attention", "recurrent"),
    )
    texture: bool = key(
        "residual_cnn: beside the network, dense layers over how the bands move together; both are averaged"
    )
    pools: tuple[int, ...] = key(
        "seed_*: how far each block's pooling shortens both axes", low=1, high=16, may_be_empty=True
    )
    dense: tuple[int, ...] = key(
        "seed_*: values of hidden dense layers, which take the maps of all places in place of a head",
        low=1,
        high=65536,
        may_be_empty=True,
    )
    norm: str = key(
        "normalisation: sync, over the batches of all ranks; batch, each rank over its own; group, of each sample alone",
        choices=("sync", "batch", "group"),
    )
    dropout: float = key("share of the summary's values that are dropped while training", low=0, high=0.95)


@dataclass(frozen=True, kw_only=True)
class TrainConfig:
    num_epochs: int = key("most passes over the training tracks", low=1)
    batch: int | str = key(
        "global batch: tracks a step over all ranks; auto: as many as fit into memory", low=1, choices=("auto",)
    )
    accumulate: int = key("parts of a rank's batch, one after the other in memory; one step for all of them", low=1)
    lr: float = key("AdamW's highest learning rate", low=0)
    lr_rule: str = key(
        "scale the learning rate with train.batch / train.lr_batch: linear, or by its square root",
        choices=("none", "linear", "sqrt"),
    )
    lr_batch: int = key("the batch that train.lr is meant for", low=1)
    weight_decay: float = key("AdamW's decoupled weight decay", low=0)
    warmup: float = key("share of all steps over which the learning rate rises", low=0, high=1)
    schedule: str = key(
        "after that: cosine, to zero; plateau, lowered whenever the validation loss no longer falls",
        choices=("cosine", "plateau"),
    )
    plateau_patience: int = key("plateau: epochs without a lower validation loss before it is lowered", low=0)
    plateau_factor: float = key("plateau: what it is lowered by", low=1e-6, high=1)
    max_steps: int | None = key(
        "most steps of a seed's training; the learning rate follows num_epochs all the same", low=1
    )
    target: float | None = key("stop once the validation accuracy has reached this", low=0, high=1)
    label_smoothing: float = key("share of a label that is spread over all (Szegedy et al. 2016)", low=0, high=0.9)
    ema: float = key(
        "the model is a moving average of the weights, each step so much of the one before; 0: the weights",
        low=0,
        high=0.9999,
    )
    keep: str = key(
        "which epoch's model a seed's training gives: the best by validation loss, or the last",
        choices=("best", "last"),
    )
    patience: int = key("stop after this many epochs without a validation loss lower by min_delta", low=1)
    min_delta: float = key("what patience takes for lower", low=0)
    seeds: tuple[int, ...] = key("one training for each; the report gives their mean", low=0)
    precision: str = key(
        "auto: bf16 where the hardware has it, else fp16 on GPUs, fp32 on CPUs",
        choices=("auto", "bf16", "fp16", "fp32", "fp64"),
    )
    compile: bool = key("compile the model with torch.compile: faster steps after a start of minutes")
    checkpoint_every: int = key("steps between checkpoints within an epoch; 0: as checkpoint_minutes says", low=0)
    checkpoint_minutes: float = key("most minutes between checkpoints; each end of an epoch has one anyhow", low=0)
    track: tuple[str, ...] = key("where the figures of metrics.jsonl also go", choices=("tensorboard", "mlflow"))
    device: str = key("auto: a GPU where there is one", choices=("auto", "cpu", "cuda"))
    profile: bool = key(
        "record some steps with torch.profiler: a trace of each rank, and a table of where the time goes"
    )
    timing: int = key(
        "before the training, time so many windows of steps; what they learn is thrown away; 0: none", low=0
    )
    timing_s: float = key("length of such a window, seconds", low=0.01, high=3600)


@dataclass(frozen=True, kw_only=True)
class AugmentConfig:
    mixup: float = key("mixup: alpha of the Beta distribution that shares are drawn from; 0: none", low=0, high=10)
    time_masks: int = key("SpecAugment: stretches of time hidden in each crop", low=0, high=20)
    time_mask_share: float = key("SpecAugment: longest of them, as a share of the crop", low=0, high=1)
    mel_masks: int = key("SpecAugment: stretches of mel bands hidden in each crop", low=0, high=20)
    mel_mask_share: float = key("SpecAugment: widest of them, as a share of the bands", low=0, high=1)
    gain_db: float = key("gain: crops are louder or softer by up to this, dB", low=0, high=60)
    eq_db: float = key("filter: a random curve over the bands, of up to this, dB", low=0, high=60)
    noise: float = key("share of the crops that get white noise, 30 to 70 dB below their loudest", low=0, high=1)
    time_shift: float = key("crops are turned round in time by up to this share of them", low=0, high=1)
    time_stretch: float = key("crops are faster or slower by up to this share", low=0, high=1)
    pitch_semitones: float = key("crops are higher or lower by up to this", low=0, high=12)
    without: str | None = key(
        "leave one out, to see what it is worth",
        choices=("mixup", "masks", "gain", "eq", "noise", "shift", "stretch", "pitch"),
    )


@dataclass(frozen=True, kw_only=True)
class VerifyConfig:
    kill_at: tuple[str, ...] = key(
        "disturbances, one a start: step:N, during:checkpoint, signal:USR1|TERM|INT; default one of each, as early as the run is short"
    )
    ranks: int | None = key("world size; default that of the allocation, else 1", low=1)
    resume_ranks: int | None = key("world size from the first restart on; default as before", low=1)
    tolerance: float = key(
        "largest relative difference where bits cannot be equal: on GPUs, or with verify.resume_ranks", low=0
    )
