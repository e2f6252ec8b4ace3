#include "ops/ops.h"

namespace qn {

Var attention(Tape& tape, const Var& qkv, int64_t batch, int64_t time, int64_t heads, bool causal,
              const Dropout& drop) {
  const int64_t width = qkv.value.cols() / 3;
  QN_ASSERT(width * 3 == qkv.value.cols() && width % heads == 0 && qkv.value.rows() == batch * time);
  const AttentionArgs args{.batch = batch,
                           .time = time,
                           .heads = heads,
                           .head_dim = width / heads,
                           .causal = causal,
                           .dropout = tape.training() ? drop.p : 0.0,
                           .key = tape.key(Purpose::dropout, drop.site)};
  const Var out = tape.result({batch * time, width});
  const Tensor lse = tape.parameter_tensor({batch * heads * time});
  tape.k.attention(out.value, lse, qkv.value, args);
  tape.on_backward([&tape, qkv, out, lse, args] {
    if (!Tape::has_grad(out)) return;
    const Tape::Slot dqkv = tape.slot(qkv);
    QN_ASSERT(dqkv.beta == 0, "q, k and v have one use only");
    tape.k.attention_grad(dqkv.grad, out.slot->grad, out.value, lse, qkv.value, args);
  });
  return out;
}

}  // namespace qn
