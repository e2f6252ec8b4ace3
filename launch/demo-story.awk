# What quantization noise bought, said from the numbers. One line comes in: perplexities dense, quantized and packed,
# bytes in fp32 and packed, of the model without noise, then the same five of the model with noise.

function change(from, to) { return 100 * (to / from - 1) }

# "12 % lower with noise (8.00 against 9.09)"; differences that another seed could turn round are none.
function compared(from, to, c) {
  c = change(from, to)
  if (c > -kSame && c < kSame) return sprintf("the same but for %.1f %% (%.2f with noise, %.2f without)", c < 0 ? -c : c, to, from)
  return sprintf("%.*f %% %s with noise (%.2f against %.2f)", (c > -10 && c < 10) ? 1 : 0, c < 0 ? -c : c, c < 0 ? "lower" : "higher", to, from)
}

function verdict(c) { return c <= -kSame ? "won" : c >= kSame ? "lost" : "bought nothing" }

{
  kSame = 1
  at_once = change($2, $7); packed = change($3, $8)
  printf "What noise bought: quantized at once, perplexity is %s; packed, it is %s. ", compared($2, $7), compared($3, $8)
  printf "Dense, before any of it, it is %s. ", compared($1, $6)
  if (verdict(at_once) == verdict(packed)) printf "So noise %s, at once and after finetuning", verdict(packed)
  else printf "So noise %s at once, and %s after finetuning", verdict(at_once), verdict(packed)
  printf ": quantizing takes %.2f to %.2f without noise and %.2f to %.2f with it.\n", $1, $3, $6, $8
}
