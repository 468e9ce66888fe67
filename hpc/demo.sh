#!/usr/bin/env bash
# The whole job on a corpus that needs no download: synth → preprocess on 2 engines → train on 2 ranks → evaluate → predict,
# and two quick looks: at what a second rank is worth, and at what leaky splits would have read.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
. hpc/env.sh

step() { printf '\n== %s\n' "$*"; "$@"; }

rm -rf logs/{synth,preprocess,train,evaluate,predict,scaling}/demo logs/{synth,preprocess}/hard logs/benchmark/demo
step ptunes synth run.name=demo
step ptunes preprocess data=synthetic data.root=logs/synth/demo parallel.engines=2 run.name=demo
step bash hpc/torchrun.sh 2 train task=genre data=synthetic data.root=logs/synth/demo data.shards=logs/preprocess/demo \
  train.num_epochs=8 augment=none run.name=demo  # augmentation wants more epochs
step ptunes evaluate model=logs/train/demo/model data=synthetic data.root=logs/synth/demo data.shards=logs/preprocess/demo run.name=demo
# a track that the model was not trained on: the first of the test split
track=$(sed -n 2p logs/train/demo/predictions.csv | cut -d, -f1)
step ptunes predict model=logs/train/demo/model run.name=demo -- "logs/synth/demo/$track"
# 1 and 2 ranks × 2 batches, one launch of three short windows each, of a smaller network
step ptunes scaling data=synthetic data.root=logs/synth/demo data.shards=logs/preprocess/demo run.name=demo \
  'scaling.gpus=[1,2]' 'scaling.batch=[16,32]' scaling.launches=1 scaling.window_s=0.4 scaling.ddp_baseline=false \
  'model.widths=[16,32,64,128]' split.train=0.9 split.valid=0.05 split.test=0.05
# a small corpus whose genres are hard to tell and whose artists and recordings are easy, under each protocol
step ptunes synth run.name=hard num_artists=4 tracks_per_artist=6 duration_s=4.5 blend=0.4 artist_strength=3 track_strength=3
step ptunes preprocess data=synthetic data.root=logs/synth/hard features.num_mels=32 features.hop_length=1024 run.name=hard
step bash hpc/torchrun.sh 2 benchmark suite=splits run.name=demo data=synthetic data.root=logs/synth/hard features.num_mels=32 features.hop_length=1024 \
  augment=none task.crop_s=1.5 train.batch=16 train.num_epochs=20 split.train=0.5 split.valid=0.1 split.test=0.4

python - <<'PYTHON'
import json
test = json.load(open("logs/train/demo/report.json"))["metrics"]["test"]
low, high = test["accuracy_ci95"]
print(f"\ntest accuracy {test['accuracy']:.3f}, 95 % interval {low:.3f} to {high:.3f}, n = {test['n']} tracks by artists not trained on")
print("open logs/train/demo/report.html, logs/scaling/demo/report.html and logs/benchmark/demo/report.html")
PYTHON
