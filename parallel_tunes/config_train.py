"""The keys of what is learnt, by which model and how: conf/task/, conf/model/, conf/train/ and conf/augment/."""

from __future__ import annotations

from dataclasses import dataclass

from parallel_tunes.schema import key


@dataclass(frozen=True, kw_only=True)
class TaskConfig:
    name: str = key("what is learnt", choices=("genre",))
    crop_s: float = key("length of a training crop and of an evaluation window, seconds", low=0.05)
    overlap: float = key("overlap of neighbouring evaluation windows, as a share of the window", low=0, high=0.95)


@dataclass(frozen=True, kw_only=True)
class ModelConfig:
    name: str = key("architecture", choices=("genre_cnn",))
    widths: tuple[int, ...] = key("channels of the convolution blocks", low=1, high=4096)
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
    warmup: float = key("share of all steps over which the learning rate rises; then a cosine to zero", low=0, high=1)
    max_steps: int | None = key(
        "most steps of a seed's training; the learning rate follows num_epochs all the same", low=1
    )
    target: float | None = key("stop once the validation accuracy has reached this", low=0, high=1)
    patience: int = key("stop after this many epochs without a lower validation loss", low=1)
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
