#include "ops/host_access.h"
#include "ops/ops.h"
#include "ops/sequences.h"

namespace qn {
namespace {

/// Whether the sequences, each of which counts only if `others` (of the same number) has rows, leave rows out.
bool leaves_rows_out(const Sequences& sequences, const Sequences& others, int64_t rows) {
  for (size_t i = 0; i < sequences.lengths.size(); ++i)
    if (others.lengths[i] > 0) rows -= sequences.lengths[i];
  return rows != 0;
}

/// Pairs of query and key that see each other. Finds out what is wrong with the sequences.
int64_t count_pairs(const Sequences& queries, const Sequences& keys, bool causal, int64_t query_rows,
                    int64_t key_rows) {
  QN_ASSERT(queries.count() == keys.count() && queries.begins.size() == queries.lengths.size() &&
            keys.begins.size() == keys.lengths.size());
  const auto is_inside = [](const Sequences& s, size_t i, int64_t rows) {
    return s.begins[i] >= 0 && s.lengths[i] >= 0 && s.lengths[i] <= s.longest && s.begins[i] + s.lengths[i] <= rows;
  };
  int64_t pairs = 0;
  for (size_t i = 0; i < queries.lengths.size(); ++i) {
    const int64_t q = queries.lengths[i], k = keys.lengths[i];
    QN_ASSERT(is_inside(queries, i, query_rows) && is_inside(keys, i, key_rows) && (q == 0 || k > 0),
              "sequence {}: {} queries, {} keys", i, q, k);
    pairs += causal ? q * (q + 1) / 2 : q * k;
  }
  return pairs;
}

/// `q` and `kv` as of Kernels::attention, and whether there are rows of theirs that the kernels leave alone.
struct Operands {
  Var q, kv;
  bool query_gaps = false, key_gaps = false;
};

/// So that the backward need not draw them again, where they take no more memory than queries, keys and values: up to
/// some thousand keys.
uint64_t* room_for_keep_bits(Tape& tape, const Operands& in, const AttentionArgs& args) {
  if (on_host(tape.k) || !tape.recording() || args.dropout <= 0.0) return nullptr;
  const size_t bytes = static_cast<size_t>(attention_keep_words(args)) * sizeof(uint64_t);
  const bool one = in.q.slot == in.kv.slot;
  if (bytes > in.q.value.bytes() + (one ? 0 : in.kv.value.bytes())) return nullptr;
  return static_cast<uint64_t*>(tape.arena.allocate(bytes));
}

Var attend(Tape& tape, const Operands& in, AttentionArgs args, const Dropout& drop) {
  args.dropout = tape.training() ? drop.p : 0.0;
  args.key = tape.key(Purpose::dropout, drop.site);
  const Var out = tape.result({in.q.value.rows(), args.heads * args.head_dim});
  if (in.query_gaps) tape.k.fill(out.value, 0.0);
  const Tensor lse = tape.parameter_tensor({args.batch * args.heads * args.queries.longest});
  args.kept = room_for_keep_bits(tape, in, args);
  tape.k.attention(out.value, lse, in.q.value, in.kv.value, args);
  tape.on_backward([&tape, in, out, lse, args] {
    if (!Tape::has_grad(out)) return;
    const auto slot = [&](const Var& x, bool gaps) {
      const Tape::Slot s = tape.slot(x);
      QN_ASSERT(s.beta == 0, "q, k and v have one use only");
      if (gaps) tape.k.fill(s.grad, 0.0);
      return s.grad;
    };
    const bool one = in.q.slot == in.kv.slot;
    const Tensor dq = slot(in.q, in.query_gaps), dkv = one ? dq : slot(in.kv, in.key_gaps);
    tape.k.attention_grad(dq, dkv, out.slot->grad, out.value, lse, in.q.value, in.kv.value, args);
  });
  return out;
}

RowSequences uploaded(Tape& tape, const Sequences& sequences) {
  return {sequences.longest, tape.upload(sequences.begins), tape.upload(sequences.lengths)};
}

/// Zeros without a gradient: what no sequence leaves of a result.
Var nothing(Tape& tape, Shape shape) {
  const Var out{tape.tensor(shape), nullptr};
  tape.k.fill(out.value, 0.0);
  return out;
}

}  // namespace

Var attention(Tape& tape, const Var& qkv, int64_t batch, int64_t time, int64_t heads, bool causal,
              const Dropout& drop) {
  const int64_t width = qkv.value.cols() / 3;
  QN_ASSERT(width * 3 == qkv.value.cols() && width % heads == 0 && qkv.value.rows() == batch * time);
  return attend(tape, {qkv, qkv}, self_attention(batch, time, heads, width / heads, causal), drop);
}

void attention_in_place(Tape& tape, const Tensor& q, const Tensor& kv, int64_t batch, int64_t time, int64_t heads,
                        bool causal) {
  const int64_t width = q.cols();
  QN_ASSERT(!tape.recording() && width % heads == 0 && q.rows() == batch * time && kv.rows() == q.rows() &&
            kv.cols() == 2 * width);
  const Tensor lse = tape.parameter_tensor({batch * heads * time});
  tape.k.attention(q, lse, q, kv, self_attention(batch, time, heads, width / heads, causal));
}

Var attention(Tape& tape, const Var& qkv, const Sequences& sequences, int64_t heads, bool causal, const Dropout& drop) {
  const int64_t rows = qkv.value.rows(), width = qkv.value.cols() / 3;
  QN_ASSERT(width * 3 == qkv.value.cols() && width % heads == 0);
  const int64_t pairs = count_pairs(sequences, sequences, causal, rows, rows);
  if (pairs == 0) return nothing(tape, {rows, width});
  const RowSequences where = uploaded(tape, sequences);
  return attend(tape, {qkv, qkv, leaves_rows_out(sequences, sequences, rows)},
                {.batch = sequences.count(),
                 .queries = where,
                 .keys = where,
                 .heads = heads,
                 .head_dim = width / heads,
                 .causal = causal,
                 .key = {},
                 .pairs = pairs},
                drop);
}

Var cross_attention(Tape& tape, const Var& q, const Var& kv, const Sequences& queries, const Sequences& keys,
                    int64_t heads, const Dropout& drop) {
  const int64_t width = q.value.cols();
  QN_ASSERT(kv.value.cols() == 2 * width && width % heads == 0);
  const int64_t pairs = count_pairs(queries, keys, false, q.value.rows(), kv.value.rows());
  if (pairs == 0) return nothing(tape, {q.value.rows(), width});
  return attend(
      tape, {q, kv, leaves_rows_out(queries, keys, q.value.rows()), leaves_rows_out(keys, queries, kv.value.rows())},
      {.batch = queries.count(),
       .queries = uploaded(tape, queries),
       .keys = uploaded(tape, keys),
       .heads = heads,
       .head_dim = width / heads,
       .causal = false,
       .key = {},
       .pairs = pairs},
      drop);
}

}  // namespace qn
