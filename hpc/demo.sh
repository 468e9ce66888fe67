#!/usr/bin/env bash
# The whole job on a corpus that needs no download: synth → preprocess on 2 engines → train on 2 ranks → evaluate → predict.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
. hpc/env.sh

step() { printf '\n== %s\n' "$*"; "$@"; }

rm -rf logs/{synth,preprocess,train,evaluate,predict}/demo
step ptunes synth run.name=demo
step ptunes preprocess data=synthetic data.root=logs/synth/demo parallel.engines=2 run.name=demo
step bash hpc/torchrun.sh 2 train task=genre data=synthetic data.root=logs/synth/demo data.shards=logs/preprocess/demo \
  train.num_epochs=8 run.name=demo
step ptunes evaluate model=logs/train/demo/model data=synthetic data.root=logs/synth/demo data.shards=logs/preprocess/demo run.name=demo
# a track that the model was not trained on: the first of the test split
track=$(sed -n 2p logs/train/demo/predictions.csv | cut -d, -f1)
step ptunes predict model=logs/train/demo/model run.name=demo -- "logs/synth/demo/$track"

python - <<'PYTHON'
import json
test = json.load(open("logs/train/demo/report.json"))["metrics"]["test"]
low, high = test["accuracy_ci95"]
print(f"\ntest accuracy {test['accuracy']:.3f}, 95 % interval {low:.3f} to {high:.3f}, n = {test['n']} tracks by artists not trained on")
print("open logs/train/demo/report.html")
PYTHON
