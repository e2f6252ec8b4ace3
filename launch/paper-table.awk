# The report of launch/paper-table. First file, one row each: name|group|text|paper|kind|noise rate|why it failed.
# Second file, tab-separated: row, seed, perplexity dense, quantized at once, finetuned, bytes. `format` is md or html.

function escape(text) {
  gsub(/&/, "\\&amp;", text); gsub(/</, "\\&lt;", text); gsub(/>/, "\\&gt;", text)
  return text
}

# ---- numbers ---------------------------------------------------------------------------------------------------------

function add(row, what, value) {
  if (value == "") return
  count[row, what]++; sum[row, what] += value; squares[row, what] += value * value
}
function mean(row, what) { return sum[row, what] / count[row, what] }
function deviation(row, what, n, v) { # of a sample
  n = count[row, what]
  if (n < 2) return 0
  v = (squares[row, what] - sum[row, what] ^ 2 / n) / (n - 1)
  return v > 0 ? sqrt(v) : 0
}
# What no model has that learned anything: the training diverged without a value that is not finite.
function diverged(value) { return value > 1e6 }
function perplexity(row, what) {
  if (!count[row, what]) return "-"
  if (diverged(mean(row, what))) return "diverged"
  return sprintf("%.2f", mean(row, what)) (count[row, what] > 1 ? sprintf(" ± %.2f", deviation(row, what)) : "")
}
function grouped(n, text) { # 1,234,567
  text = sprintf("%d", n)
  while (match(text, /[0-9][0-9][0-9][0-9]+/))
    text = substr(text, 1, RSTART + RLENGTH - 4) "," substr(text, RSTART + RLENGTH - 3)
  return text
}
function ratio(row) { return count["fp32", "bytes"] ? sprintf("%.1f", mean("fp32", "bytes") / mean(row, "bytes")) : "-" }

# The cells of a row, in `cell`.
function cells(row, p, n) {
  cell[1] = text_of[row]
  cell[2] = count[row, "bytes"] ? grouped(mean(row, "bytes")) : "-"
  cell[3] = count[row, "bytes"] ? ratio(row) : "-"
  cell[4] = perplexity(row, "dense"); cell[5] = perplexity(row, "once"); cell[6] = perplexity(row, "tuned")
  n = split(paper[row], p, "/")
  cell[7] = n == 3 ? p[1] : "-"; cell[8] = n == 3 ? sprintf("%.1f", 942 / p[1]) : "-"
  cell[9] = n == 3 && p[2] != "-" ? p[2] (p[3] == "memory" ? " (b)" : " (a)") : "-"
  if (failure[row] != "") cell[2] = "failed"
}
function seeds_text() {
  return most_seeds > 1 ? sprintf("Mean and standard deviation of %d seeds.", most_seeds) : "One seed: differences of a few percent may be chance."
}

# ---- plots -----------------------------------------------------------------------------------------------------------

function point(series, x, y, label) {
  if (diverged(y)) return
  points++; px[points] = x; py[points] = y; ps[points] = series; pl[points] = label
}
function place(v, low, high, logarithmic) { return logarithmic ? log(v / low) / log(high / low) : (v - low) / (high - low) }
function number_text(v) { return v >= 1e6 ? v / 1e6 "M" : v >= 1e4 ? v / 1e3 "k" : v "" }

# Ticks of an axis in `tick`, and how many: 1, 2, 5 times powers of ten, more of them where they are few; or equal steps.
function ticks(low, high, logarithmic, n, power, i, v, step, parts) {
  n = 0
  if (logarithmic) {
    parts = split(high / low > 6 ? "1 2 5" : "1 1.2 1.5 2 2.5 3 4 5 6 7 8 9", digits, " ")
    for (power = -3; power <= 12; power++)
      for (i = 1; i <= parts; i++) {
        v = digits[i] * 10 ^ power
        if (v >= low && v <= high) tick[++n] = v
      }
    return n
  }
  step = 10 ^ int(log(high - low) / log(10) - (high - low < 1))
  while ((high - low) / step > 6) step *= 2
  while ((high - low) / step < 3) step /= 2
  for (v = int(low / step) * step; v <= high * 1.001; v += step) if (v >= low) tick[++n] = v
  return n
}

# One plot of the points, whose y is logarithmic; `joined` series are lines, whose points come in the order of x.
function plot(title, x_title, log_x, joined, i, n, x, y, low_x, high_x, low_y, high_y, series, names, path, s, place_x, place_y) {
  if (points < 2) { points = 0; return }
  low_x = high_x = px[1]; low_y = high_y = py[1]
  for (i = 2; i <= points; i++) {
    if (px[i] < low_x) low_x = px[i]
    if (px[i] > high_x) high_x = px[i]
    if (py[i] < low_y) low_y = py[i]
    if (py[i] > high_y) high_y = py[i]
  }
  if (low_x == high_x) high_x = low_x + 1
  low_y /= 1.05; high_y *= 1.05
  if (log_x) { low_x /= 1.1; high_x *= 1.1 }
  printf "<figure><figcaption>%s</figcaption>\n<svg viewBox=\"0 0 760 420\" role=\"img\" aria-label=\"%s\">\n", title, title
  n = ticks(low_x, high_x, log_x)
  for (i = 1; i <= n; i++) {
    x = 70 + 500 * place(tick[i], low_x, high_x, log_x)
    printf "<path class=\"grid\" d=\"M%.1f 20V360\"/><text x=\"%.1f\" y=\"378\" text-anchor=\"middle\">%s</text>\n", x, x, number_text(tick[i])
  }
  n = ticks(low_y, high_y, 1)
  for (i = 1; i <= n; i++) {
    y = 360 - 340 * place(tick[i], low_y, high_y, 1)
    printf "<path class=\"grid\" d=\"M70 %.1fH570\"/><text x=\"62\" y=\"%.1f\" text-anchor=\"end\">%s</text>\n", y, y + 4, number_text(tick[i])
  }
  printf "<text x=\"320\" y=\"405\" text-anchor=\"middle\">%s</text>\n", x_title
  printf "<text transform=\"translate(18 190) rotate(-90)\" text-anchor=\"middle\">perplexity, test</text>\n"
  names = 0; delete series; delete path
  for (i = 1; i <= points; i++) {
    if (!(ps[i] in series)) { series[ps[i]] = ++names; title_of[names] = ps[i] }
    s = series[ps[i]]
    place_x = 70 + 500 * place(px[i], low_x, high_x, log_x); place_y = 360 - 340 * place(py[i], low_y, high_y, 1)
    path[s] = path[s] sprintf("%s%.1f %.1f", path[s] == "" ? "M" : "L", place_x, place_y)
    printf "<circle class=\"s%d\" cx=\"%.1f\" cy=\"%.1f\" r=\"4\"><title>%s: %.2f</title></circle>\n", s, place_x, place_y, escape(pl[i]), py[i]
  }
  for (s = 1; s <= names; s++) {
    if (joined) printf "<path class=\"line s%d\" d=\"%s\"/>\n", s, path[s]
    printf "<circle class=\"s%d\" cx=\"590\" cy=\"%d\" r=\"4\"/><text x=\"600\" y=\"%d\">%s</text>\n", s, 28 + 20 * s, 32 + 20 * s, escape(title_of[s])
  }
  print "</svg></figure>"
  points = 0
}

function best(row) { return count[row, "tuned"] ? "tuned" : "dense" }
function kind_text(kind) { return kind == "plain" ? "plain" : kind == "full" ? "fully quantized" : "Quant-Noise" }

function size_plot(k, i, row) {
  split("plain full noise", kinds, " ")
  for (k = 1; k <= 3; k++)
    for (i = 1; i <= rows; i++) {
      row = order[i]
      if (kind[row] == kinds[k] && count[row, best(row)] && row !~ /^(budget|rate)_/)
        point(kind_text(kinds[k]), mean(row, "bytes"), mean(row, best(row)), group[row] ", " text_of[row])
    }
  plot("Perplexity against bytes (finetuned; dense models as trained)", "bytes on disk", 1, 0)
}

# Rows of one sweep, in the order of `key`, as points of a series.
function sweep(series, what, n, sorted, i, j, row) {
  for (i = 2; i <= n; i++) # few: insertion sort
    for (j = i; j > 1 && sorted_key[j] < sorted_key[j - 1]; j--) {
      row = sorted_row[j]; sorted_row[j] = sorted_row[j - 1]; sorted_row[j - 1] = row
      row = sorted_key[j]; sorted_key[j] = sorted_key[j - 1]; sorted_key[j - 1] = row
    }
  for (i = 1; i <= n; i++)
    if (count[sorted_row[i], what]) point(series, sorted_key[i], mean(sorted_row[i], what), series ", " text_of[sorted_row[i]])
}
function in_sweep(n, row, key) { sorted_row[n] = row; sorted_key[n] = key + 0; return n }

function rate_plot(i, n, row, w, names) {
  split("dense once tuned", names, " ")
  for (w = 1; w <= 3; w++) {
    n = 0
    for (i = 1; i <= rows; i++) {
      row = order[i]
      if (row == "ipq_plain") in_sweep(++n, row, 0)
      else if (row == "ipq_noise" || row ~ /^rate_/) in_sweep(++n, row, rate[row])
    }
    sweep(w == 1 ? "dense" : w == 2 ? "quantized at once" : "finetuned", names[w], n)
  }
  plot("iPQ: perplexity against the rate of exact noise", "noise rate", 0, 1)
}

function budget_plot(i, n, row, k, series) {
  split("plain noise", kinds, " ")
  for (k = 1; k <= 2; k++) {
    n = 0
    series = kind_text(kinds[k])
    row = "ipq_" kinds[k]
    if (count[row, "once"]) point(series, 0, mean(row, "once"), series ", at once")
    in_sweep(++n, row, stages * per_stage)
    for (i = 1; i <= rows; i++) if (order[i] ~ "^budget_" kinds[k] "_") { row = order[i]; sub(/.*_/, "", row); in_sweep(++n, order[i], stages * row) }
    sweep(series, "tuned", n)
  }
  plot("iPQ: perplexity against finetuning", "finetuning updates, all stages", 0, 1)
}

# ---- files -----------------------------------------------------------------------------------------------------------

function notes() {
  note[1] = "Perplexities are those of the test split: of the dense model; with everything quantized at once, without any training; and finetuned. iPQ finetunes between its stages what is not quantized yet, and centroids (" stages " stages of " per_stage " updates). int4 and int8 train all weights for as many updates, fully quantized, before they are quantized."
  note[2] = "The paper: Fan, Stock et al., arXiv 2004.07320, a Transformer of 16 layers on WikiText-103; its MB are 2^20 bytes. It has no finetuning of int4 and int8: compare those with \"at once\"."
  note[3] = "(a) confirmed by summaries of the paper that others have published, not seen in it; (b) from memory, checked by nobody: look it up before you quote it. Sizes in MB other than 942, 38 and 10 are computed or from memory."
  note[4] = seeds_text()
  return 4
}

function markdown(i, c, n) {
  printf "# The paper's language-model tables: %s\n", about
  print "\n| | bytes | ratio | dense | at once | finetuned | paper: MB | ratio | perplexity |"
  print "|---|---|---|---|---|---|---|---|---|"
  for (i = 1; i <= rows; i++) {
    if (!shown[order[i]]) continue
    if (group[order[i]] != last_group) printf "| **%s** | | | | | | | | |\n", group[order[i]]
    last_group = group[order[i]]
    cells(order[i])
    printf "|"
    for (c = 1; c <= 9; c++) printf " %s |", cell[c]
    print ""
  }
  print ""
  n = notes()
  for (i = 1; i <= n; i++) printf "%s%s\n", note[i], i < n ? "\n" : ""
  for (i = 1; i <= rows; i++) if (failure[order[i]] != "") printf "\nFailed: %s (%s)\n", order[i], failure[order[i]]
}

function html(i, c, n) {
  print "<!DOCTYPE html>\n<html lang=\"en\"><head><meta charset=\"utf-8\"><title>Quant-Noise: the paper's language-model tables</title>"
  print "<style>\nbody {font: 15px/1.45 system-ui, sans-serif; margin: 2em auto; max-width: 62em; padding: 0 1em; color: #222}"
  print "table {border-collapse: collapse; width: 100%} td, th {padding: .2em .6em; text-align: right; border-bottom: 1px solid #ddd}"
  print "td:first-child, th:first-child {text-align: left} tr.group td {font-weight: bold; padding-top: 1em} figure {margin: 2em 0}"
  print "figcaption {font-weight: bold} svg {width: 100%; max-width: 760px; font-size: 12px} .grid {stroke: #ddd} .line {fill: none; stroke-width: 2}"
  print ".s1 {fill: #1f77b4; stroke: #1f77b4} .s2 {fill: #d95f02; stroke: #d95f02} .s3 {fill: #1b9e77; stroke: #1b9e77} .line {fill: none}\n</style></head><body>"
  printf "<h1>The paper's language-model tables</h1>\n<p>%s</p>\n", escape(about)
  print "<table><tr><th></th><th>bytes</th><th>ratio</th><th>dense</th><th>at once</th><th>finetuned</th><th>paper: MB</th><th>ratio</th><th>perplexity</th></tr>"
  for (i = 1; i <= rows; i++) {
    if (!shown[order[i]]) continue
    if (group[order[i]] != last_group) printf "<tr class=\"group\"><td colspan=\"9\">%s</td></tr>\n", escape(group[order[i]])
    last_group = group[order[i]]
    cells(order[i])
    printf "<tr>"
    for (c = 1; c <= 9; c++) printf "<td>%s</td>", escape(cell[c])
    print "</tr>"
  }
  print "</table>"
  n = notes()
  for (i = 1; i <= n; i++) printf "<p>%s</p>\n", escape(note[i])
  for (i = 1; i <= rows; i++) if (failure[order[i]] != "") printf "<p>Failed: %s (%s)</p>\n", order[i], escape(failure[order[i]])
  size_plot(); rate_plot(); budget_plot()
  print "</body></html>"
}

BEGIN {FS = "|"}
FNR == 1 {file++; if (file == 2) FS = "\t"; $0 = $0}
file == 1 {
  order[++rows] = $1; group[$1] = $2; text_of[$1] = $3; paper[$1] = $4; kind[$1] = $5; rate[$1] = $6; failure[$1] = $7
  if ($7 != "") shown[$1] = 1
}
file == 2 {
  shown[$1] = 1
  add($1, "dense", $3); add($1, "once", $4); add($1, "tuned", $5); add($1, "bytes", $6)
  if (count[$1, "dense"] > most_seeds) most_seeds = count[$1, "dense"]
}
END {if (format == "md") markdown(); else html()}
