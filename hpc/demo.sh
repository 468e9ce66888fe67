#!/usr/bin/env bash
# The main job on a corpus that needs no download: synth → preprocess on 2 engines → train on 2 ranks → evaluate → predict.
# With --all also two quick looks: what a second rank is worth, and what leaky splits would have measured.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
. hpc/env.sh

step() { printf '\n== %s\n' "$*"; "$@"; }

rm -rf logs/{synth,preprocess,train,evaluate,predict,scaling}/demo logs/{synth,preprocess}/hard logs/benchmark/demo
data=(data=synthetic data.root=logs/synth/demo)
step ptunes synth run.name=demo
step ptunes preprocess "${data[@]}" parallel.engines=2 run.name=demo
step bash hpc/torchrun.sh 2 train task=genre "${data[@]}" data.shards=logs/preprocess/demo \
  train.num_epochs=8 augment=none run.name=demo  # augmentation needs more epochs
step ptunes evaluate model=logs/train/demo/model "${data[@]}" data.shards=logs/preprocess/demo run.name=demo
# a track that the model was not trained on: the first of the test split
track=$(sed -n 2p logs/train/demo/predictions.csv | cut -d, -f1)
step ptunes predict model=logs/train/demo/model run.name=demo -- "logs/synth/demo/$track"

if [ "${1:-}" = --all ]; then
  # 1 and 2 ranks × 2 batches, one launch of three short windows each, of a smaller network
  step ptunes scaling "${data[@]}" data.shards=logs/preprocess/demo run.name=demo \
    'scaling.gpus=[1,2]' 'scaling.batch=[16,32]' scaling.launches=1 scaling.window_s=0.4 scaling.ddp_baseline=false \
    'model.widths=[16,32,64,128]' split.train=0.9 split.valid=0.05 split.test=0.05
  # a small corpus whose genres are hard to tell and whose artists and recordings are easy, under each protocol
  step ptunes synth run.name=hard num_artists=4 tracks_per_artist=6 duration_s=4.5 blend=0.4 artist_strength=3 track_strength=3
  hard=(data=synthetic data.root=logs/synth/hard features.num_mels=32 features.hop_length=1024)
  step ptunes preprocess "${hard[@]}" run.name=hard
  step bash hpc/torchrun.sh 2 benchmark suite=splits run.name=demo "${hard[@]}" \
    augment=none task.crop_s=1.5 train.batch=16 train.num_epochs=20 split.train=0.5 split.valid=0.1 split.test=0.4
fi

python - <<'PYTHON'
import json
test = json.load(open("logs/train/demo/report.json"))["metrics"]["test"]
low, high = test["accuracy_ci95"]
print(f"\ntest accuracy {test['accuracy']:.3f}, 95 % interval {low:.3f} to {high:.3f}, n = {test['n']} tracks by artists not trained on")
print("report: logs/train/demo/report.html")
PYTHON
[ "${1:-}" != --all ] || echo "reports: logs/scaling/demo/report.html, logs/benchmark/demo/report.html"
