# shellcheck shell=bash
# Sourced by drills: what they train, and what they compare.

# A small text with some structure, prepared in the current folder, and a configuration of a model
# that trains on it in milliseconds per update. drill_corpus PROGRAM
drill_corpus() {
  local split lines seed
  while read -r split lines seed; do
    awk -v lines="$lines" -v seed="$seed" 'BEGIN {
      srand(seed)
      for (l = 0; l < lines; ++l) {
        for (i = 0; i < 12; ++i) {
          v = rand()
          word = rand() < 0.6 ? (word * 5 + 3) % 64 : int(64 * v * v)
          printf "w%d ", word
        }
        print ""
      }
    }' >"$split.txt"
  done <<<$'train 300 1\nvalid 40 2'
  "$1" prepare --train train.txt --valid valid.txt --out data >prepare.log 2>&1
  cat >model.yaml <<'YAML'
model: {layers: 2, embed_dim: 32, ffn_dim: 64, heads: 2, prenorm: true, share_input_output: true, dropout: 0.1}
data: {path: data, tokens_per_sample: 24, max_tokens: 96}
quant_noise: {pq: 0.2, block_size: 4}
optimizer: {name: adam}
schedule: {name: fixed, lr: 0.002}
train: {micro_batches: 4, validate_every_epochs: 0, log_every_updates: 1000}
ipq: {updates_per_stage: 20, kmeans_iterations: 8, save_every_kmeans_iterations: 1}
checkpoint: {save_every_updates: 5, save_every_epochs: 0}
YAML
}

# What must be equal in two checkpoints. Times, folders and the run's identity are not. checkpoint_content PROGRAM FILE
checkpoint_content() {
  head -c 65536 "$2" | tr -d '\0' | grep -a -E '^[0-9a-f]{16} [0-9]+ [0-9]+ tensors/' | awk '{print $1, $4}' | sort -k 2
  "$1" inspect "$2" | grep -E '^[a-z_/]+: [0-9.e+-]+$' | grep -v '^training_seconds'
}

descendants() { # PID: itself and all below it
  local child
  echo "$1"
  for child in $(cat /proc/"$1"/task/*/children 2>/dev/null); do descendants "$child"; done
}
