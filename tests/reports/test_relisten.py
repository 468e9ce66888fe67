"""The pages of task=relisten, from trainings through the door."""

from __future__ import annotations

import html.parser
import json
import re
import shutil
from pathlib import Path
from typing import Any

import matplotlib.image
import pytest
import yaml
from fakes import door

from parallel_tunes.config_run import RunConfig
from parallel_tunes.reports.relisten import write, write_ladder
from parallel_tunes.reports.relisten_figures import best_rows, lower_rates
from parallel_tunes.reports.relisten_sweep import label_runs, read_sweep, swept_keys
from parallel_tunes.reports.relisten_words import beat_words, count_words, ladder_words, whole
from parallel_tunes.run import Run

Facts = dict[str, Any]
SMALL = [
    "task=relisten", "data=kkbox", "data.root=logs/synth/l", "data.columns=logs/preprocess/l", "model.width=8", "model.buckets=20",
    "train.batch=500", "train.lr=0.003", "train.num_epochs=3", "task.resamples=20",
]  # fmt: skip
JUDGED = {"scores.png", "slices.png", "calibration.png", "confusion_matrix.png"}
CURVES = {"loss_curves.png", "score_curves.png"}


class Page(html.parser.HTMLParser):
    """Tags, pictures, text and the rows of all tables of a page."""

    def __init__(self, folder: Path) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.images: list[dict[str, str | None]] = []
        self.words: list[str] = []
        self.rows: list[list[str]] = []
        self.in_cell = False
        self.feed((folder / "report.html").read_text())

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        if tag == "img":
            self.images.append(dict(attrs))
        elif tag == "tr":
            self.rows.append([])
        elif tag in ("td", "th"):
            self.rows[-1].append("")
            self.in_cell = True

    def handle_endtag(self, tag: str) -> None:
        self.in_cell = self.in_cell and tag not in ("td", "th")

    def handle_data(self, data: str) -> None:
        self.words.append(data)
        if self.in_cell:
            self.rows[-1][-1] += f" {data}" if self.tags[-1] == "span" else data

    @property
    def text(self) -> str:
        return " ".join(" ".join(self.words).split())

    def row(self, name: str) -> list[str]:
        """The cells beside the first table's row of that name."""
        return next(row[1:] for row in self.rows if row and row[0] == name)


def read(folder: Path) -> tuple[Page, Facts]:
    """A page and the report beside it; its pictures are checked to be those of the folder, none of them empty."""
    page = Page(folder)
    pictures = sorted(folder.glob("*.png"))
    assert len(page.images) == len(pictures)
    assert all(image["alt"] and (image["src"] or "").startswith("data:image/png;base64,") for image in page.images)
    for picture in pictures:
        pixels = matplotlib.image.imread(picture)
        assert min(pixels.shape[:2]) > 200, picture.name
        assert pixels[..., :3].std() > 0.02, picture.name
    assert "script" not in page.tags
    return page, json.loads((folder / "report.json").read_text())


def pictures_of(folder: Path) -> set[str]:
    return {path.name for path in folder.glob("*.png")}


def cell(judged: Facts, key: str) -> str:
    """A score and its interval, as tables have them."""
    return f"{judged[key]:.3f} {judged[f'{key}_ci95'][0]:.3f} to {judged[f'{key}_ci95'][1]:.3f}"


def reopen(folder: Path) -> Run:
    """A run as its job left it."""
    run = Run("train", RunConfig(dir=None, name=None, max_restarts=1), folder, is_writer=True, started=0)
    run.config = yaml.safe_load((folder / "config.yaml").read_text())
    return run


@pytest.fixture(scope="module")
def sweep(heard: Path) -> Path:
    """The folder of a sweep's runs: two that learn, and between them one that diverges."""
    words = [word for word in SMALL if not word.startswith("train.lr")]
    door("train", "-m", *words, "train.lr=0.003,1e30,0.0003", "run.name=page-sweep", cwd=heard)
    return heard / "logs/train"


def test_the_page_says_what_the_report_says(sweep: Path) -> None:
    page, report = read(sweep / "page-sweep-0")
    assert pictures_of(sweep / "page-sweep-0") == JUDGED | CURVES
    test, text = report["metrics"]["test"], page.text
    users = f"n = 1200 rows of {test['num_groups']} users"
    ends = f"95 % interval {test['auc_ci95'][0]:.3f} to {test['auc_ci95'][1]:.3f}"
    for said in (f"AUC {test['auc']:.3f}", ends, users, f"Accuracy {100 * test['accuracy']:.1f} %", test["ci95_method"],
                 f"{100 * test['majority_share']:.1f} % of always naming", "that of Bayes, is not known"):  # fmt: skip
        assert said in text
    assert page.row("network")[:2] == [cell(test, "auc"), cell(test, "accuracy")]
    for name, judged in report["baselines"].items():
        assert page.row(name)[:2] == [cell(judged, "auc"), cell(judged, "accuracy")]
    for name, judged in test["slices"].items():
        sizes = [str(judged["n"]), str(judged["num_groups"])]
        assert page.row(name)[:3] == [*sizes, cell(judged, "auc")]
        assert f"{name}, n = {judged['n']}, network {judged['auc']:.3f}" in (page.images[1]["alt"] or "")
    for name, num in report["split"]["rows"].items():
        assert page.row(name) == [str(num), f"{100 * report['share_again'][name]:.1f} %"]
    for name, num in report["columns"].items():
        assert page.row(name) == [whole(num)]
    assert page.row("parameters") == [whole(report["num_parameters"])]
    assert page.row("steps") == [f"{report['steps']} in 3 epochs"]
    assert page.row("songs in these listens") == [str(report["tables"]["num_songs"])]
    lacks = "songs that the table songs lacks: what it would tell is missing"
    assert page.row(lacks) == [str(report["tables"]["num_songs_not_in_songs"])]
    assert ", ".join(report["features"]["numbers"]) in text
    for said in (
        "the song's earlier rate: AUC",
        "have an unseen user: the AUC",
        "as known by the very next row (features.delay)",
    ):
        assert said in text
    assert "split=random" not in text


def test_the_last_page_of_a_sweep_shows_it(sweep: Path) -> None:
    page, _ = read(sweep / "page-sweep-2")
    assert pictures_of(sweep / "page-sweep-2") == JUDGED | CURVES | {"sweep.png"}
    assert not (sweep / "page-sweep-1/report.html").exists()
    best = {}
    for at, rate in ((0, "0.003"), (2, "0.0003")):
        report = json.loads((sweep / f"page-sweep-{at}/report.json").read_text())
        rows = [json.loads(line) for line in (sweep / f"page-sweep-{at}/metrics.jsonl").read_text().splitlines()]
        best[rate] = min(row["valid"]["loss"] for row in rows)
        test = report["metrics"]["test"]
        told = page.row(f"page-sweep-{at}")
        assert told[:5] == [rate, cell(test, "auc"), cell(test, "accuracy"), f"{best[rate]:.3f}", "3"]
        assert told[-1] == "complete"
        assert f"lr {rate} {test['auc']:.3f}" in (page.images[0]["alt"] or "")
    rate, *_, end = page.row("page-sweep-1")
    assert (rate, "the training diverged" in end) == ("1e+30", True)
    chosen = min(best, key=lambda rate: best[rate])
    assert f"which is what to choose by: lr {chosen}, {best[chosen]:.3f} nats." in page.text
    assert "Failed: lr 1e+30." in page.text


def test_a_sweep_is_of_one_command(sweep: Path, tmp_path: Path) -> None:
    for path in sweep.glob("page-sweep-*"):
        shutil.copytree(path, tmp_path / path.name)
    report = json.loads((tmp_path / "page-sweep-0/report.json").read_text())
    runs = read_sweep(reopen(tmp_path / "page-sweep-0"), report)
    assert [each.name for each in runs] == ["page-sweep-0", "page-sweep-1", "page-sweep-2"]
    assert (swept_keys(runs), label_runs(runs)) == (["train.lr"], ["lr 0.003", "lr 1e+30", "lr 0.0003"])
    (tmp_path / "page-sweep-1/report.json").write_text('{"status": ')  # as it is being written
    (tmp_path / "page-sweep-3").mkdir()
    (tmp_path / "page-sweep-4").mkdir()
    (tmp_path / "page-sweep-4/config.yaml").write_text("- no config")
    assert [each.name for each in read_sweep(reopen(tmp_path / "page-sweep-0"), report)] == [
        "page-sweep-0", "page-sweep-2",
    ]  # fmt: skip
    alone = reopen(tmp_path / "page-sweep-0")
    alone.config["run"]["name"] = "page-sweep-0"  # a name that ends in a number is no sweep
    assert read_sweep(alone, report) == []


def test_seeds_and_leaky_protocols_are_named(heard: Path) -> None:
    words = ["split=random", "features=transductive", "train.seeds=[3,5]", "run.name=page-seeds"]
    assert door("train", *SMALL, *words, cwd=heard) == 0
    page, report = read(heard / "logs/train/page-seeds")
    test = report["metrics"]["test"]
    assert f"AUC {test['auc']:.3f}" in page.text
    assert page.row("network, mean of 2 seeds")[0] == cell(test, "auc")
    assert page.row("ensemble of 2 seeds")[0] == cell(test["ensemble"], "auc")
    for seed in ("3", "5"):
        assert page.row(seed)[:2] == [f"{test[f'{key}_seeds'][seed]:.3f}" for key in ("auc", "accuracy")]
    for said in (
        "split=random: this reads higher than an honest split by time",
        "rows that come later were counted",
        "A line each seed",
    ):
        assert said in page.text


def test_rows_that_are_all_alike_have_no_auc(heard: Path, tmp_path: Path) -> None:
    shutil.copytree(heard / "logs/synth/l", tmp_path / "tables")
    lines = (tmp_path / "tables/train.csv").read_text().splitlines()
    lines[-1200:] = [re.sub(r"\d$", "1", line) for line in lines[-1200:]]
    (tmp_path / "tables/train.csv").write_text("\n".join(lines) + "\n")
    name = "<script>alert(1) $\\alpha_{ {{ 7*7 }}"
    kept = [word for word in SMALL if not word.startswith(("data.root", "data.columns"))]
    words = ["data.root=tables", "model=relisten_seed", "features=static", f"run.name={name}"]
    assert door("train", *kept, *words, cwd=tmp_path) == 0
    page, report = read(tmp_path / "logs/train" / name)
    assert report["metrics"]["test"]["auc"] is None
    for said in ("No AUC", "all of them have the same answer", name, "their AUC cannot be compared", "features=static"):
        assert said in page.text
    assert "features.delay" not in page.text
    assert page.row("network")[0] == "–"


def test_without_test_rows_the_page_says_so(heard: Path) -> None:
    words = ["split.train=0.9", "split.valid=0.1", "split.test=0", "train.num_epochs=1", "run.name=page-none"]
    assert door("train", *SMALL, *words, cwd=heard) == 0
    page, _ = read(heard / "logs/train/page-none")
    assert pictures_of(heard / "logs/train/page-none") == CURVES
    assert "No test rows: nothing here says" in page.text
    assert page.row("test") == ["0", "–"]


@pytest.mark.parametrize(
    ("split", "said"), [("train", "learnt from these very rows"), ("test", "of synthetic tables truth.json")]
)
def test_an_evaluation_shows_what_it_has(split: str, said: str, sweep: Path, heard: Path) -> None:
    words = [
        "data=kkbox",
        *SMALL[2:4],
        f"model={sweep}/page-sweep-0/model",
        f"evaluate.split={split}",
        "evaluate.resamples=20",
    ]
    assert door("evaluate", *words, f"run.name=page-{split}", cwd=heard) == 0
    page, report = read(heard / f"logs/evaluate/page-{split}")
    assert pictures_of(heard / f"logs/evaluate/page-{split}") == JUDGED
    found = report["metrics"][split]
    assert f"AUC {found['auc']:.3f} on {split} rows" in page.text
    assert said in page.text
    # the baselines are of the test rows
    assert any(row and row[0] == "the song's earlier rate" for row in page.rows) == (split == "test")


def test_the_learning_rate_is_lowered_where_the_log_says(heard: Path) -> None:
    words = ["train.plateau_patience=0", "train.lr=0.05", "train.num_epochs=8", "train.patience=20", "run.name=page-lr"]
    assert door("train", *SMALL, *words, cwd=heard) == 0
    run = reopen(heard / "logs/train/page-lr")
    lines, told, epoch = (run.folder / "log.txt").read_text().splitlines(), [], 0
    for line in lines:
        if " epoch " in line:
            epoch += 1
        elif "learning rate x" in line and epoch < 8:
            told.append((epoch, float(line.rpartition(" ")[2])))
    assert told
    lowered = lower_rates(run.rows(), run.config["train"])
    assert [epoch for epoch, _ in lowered] == [epoch for epoch, _ in told]
    assert [factor for _, factor in lowered] == pytest.approx([factor for _, factor in told], rel=1e-5)
    assert lower_rates(run.rows(), run.config["train"] | {"schedule": "cosine"}) == []
    (best,) = best_rows(run.rows())
    page, _ = read(run.folder)
    assert f"seed 0: {best['valid']['loss']:.3f} after epoch {best['epoch'] + 1}" in page.text


def test_the_ladder_tells_what_each_step_does(sweep: Path, tmp_path: Path) -> None:
    report = json.loads((sweep / "page-sweep-0/report.json").read_text())
    test, control = report["metrics"]["test"], report["baselines"]["the user's earlier rate"]
    kinds = [("random", "static"), ("time", "static"), ("time", "causal"), ("time", "transductive")]
    rows = [
        {"name": f"rung {at}", "split": split, "features": features, "test": test, "control": control if at else None, "seconds": 3.2}
        for at, (split, features) in enumerate(kinds)
    ]  # fmt: skip
    rows[2]["test"] = test | {"auc": test["auc"] + 0.25, "auc_ci95": [0.9, 0.95]}
    run = reopen(sweep / "page-sweep-0")
    run.folder = tmp_path / "ladder"
    run.open()
    ladder = {key: report[key] for key in ("status", "seconds", "world_size", "device", "versions", "git")}
    ladder |= {"job": "benchmark", "name": "ladder", "suite": "splits", "metrics": {"rows": rows, "ratios": {}}}
    write_ladder(run, ladder)
    run.write_report(ladder)
    page, _ = read(run.folder)
    assert pictures_of(run.folder) == {"ladder.png"}
    assert page.row("rung 1")[:3] == [cell(test, "auc"), cell(control, "auc"), cell(test, "accuracy")]
    assert page.row("rung 0")[1] == "–"
    assert f"AUC {test['auc'] + 0.25:.3f} under the honest protocol" in page.text
    leak, history, future = ladder_words(rows)
    assert leak.startswith("Random → time. What goes is the leak of a random split")
    assert "LightGBM" not in leak  # one side of it is missing
    assert "is 0.250 higher than that of the step before" in history
    assert history.startswith("Time → causal. What comes is honest history")
    assert "is 0.250 lower" in future
    assert "a look into the future" in future
    assert all(sentence in page.text for sentence in (leak, history, future))


def test_a_page_is_written_again_as_it_was(sweep: Path, tmp_path: Path) -> None:
    """What a page says hangs on the run's folder alone."""
    shutil.copytree(sweep / "page-sweep-0", tmp_path / "page")
    before = (tmp_path / "page/report.html").read_text()
    run = reopen(tmp_path / "page")
    run._token = json.loads((tmp_path / "page/owner.json").read_text())["token"]
    write(run, json.loads((tmp_path / "page/report.json").read_text()))
    assert (tmp_path / "page/report.html").read_text() == before


def test_words_tell_by_the_intervals() -> None:
    low, high, wide = (
        {"auc": auc, "auc_ci95": ends} for auc, ends in ((0.6, [0.55, 0.65]), (0.7, [0.66, 0.75]), (0.7, [0.5, 0.9]))
    )
    assert (beat_words(high, low, "it") or "").startswith(
        "Beats it: AUC 0.700 (0.660 to 0.750) against 0.600 (0.550 to 0.650)"
    )
    assert (beat_words(low, high, "it") or "").startswith("Is worse than it")
    assert (beat_words(wide, low, "it") or "").startswith("Is not clearly told from it")
    assert "there are no intervals" in (beat_words({"auc": 0.7, "auc_ci95": None}, low, "it") or "")
    assert beat_words({"auc": None, "auc_ci95": None}, low, "it") is None
    assert (whole(9999), whole(7_381_838)) == ("9999", "7\u202f381\u202f838")


def test_counts_of_tables_are_told_in_words(heard: Path) -> None:
    manifest = json.loads((heard / "logs/preprocess/l/manifest.json").read_text())
    tables = {name: num for name, num in manifest.items() if name.startswith("num_")}
    told, num_even = count_words(tables)
    assert len(told) + num_even == len(tables)  # none is passed over
    assert ("rows of members for which there is no listen: left out", tables["num_members_nobody_has"]) in told
    assert count_words({"num_users_odd_bd": 2, "num_songs_twice": 0, "num_of_another_kind": 1}) == (
        [("users whose column bd makes no sense: taken as missing", 2)], 1,
    )  # fmt: skip
