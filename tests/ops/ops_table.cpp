#include "ops_table.h"

#include <algorithm>
#include <array>
#include <memory>
#include <utility>

#include "ops/host_access.h"
#include "ops/sequences.h"
#include "table_parts.h"

namespace qn::test {
namespace {

using Ids = std::vector<int32_t>;

constexpr double kP = 0.3;

/// Weights as linear maps want them.
std::vector<Var> operands(Tape& tape, Inputs weights) {
  std::vector<Var> result;
  for (const Var& weight : weights) result.push_back(cast_to_compute(tape, weight));
  return result;
}

void add_linear(Cases& cases) {
  const auto add = [&](const std::string& name, int64_t n, int64_t in, int64_t out, bool bias) {
    OpCase op{.name = "linear_" + name, .inputs = {{{n, in}}, parameter({out, in})}};
    if (bias) op.inputs.push_back(parameter({out}));
    op.forward = [bias](Tape& t, Inputs x) {
      return std::vector{linear(t, x[0], cast_to_compute(t, x[1]), bias ? x[2] : Var{})};
    };
    cases.push_back(std::move(op));
  };
  add("one", 1, 1, 1, true);
  add("bias", 5, 7, 4, true);
  add("no_bias", 3, 17, 9, false);
  add("large", 130, 33, 129, true);
  add("rows_of_4096_bytes", 9, 5, 1024, true);
  cases.push_back({.name = "linear_weight_used_twice",
                   .inputs = {{{5, 6}}, parameter({6, 6}), parameter({6})},
                   .forward = [](Tape& t, Inputs x) {
                     const Var w = cast_to_compute(t, x[1]);
                     return std::vector{linear(t, linear(t, x[0], w, x[2]), w, x[2])};
                   }});
  for (const auto& [n, in, out] : {std::array<int64_t, 3>{1, 1, 1}, {5, 7, 4}, {65, 32, 130}})
    cases.push_back({.name = "linear_transposed_" + std::to_string(n),
                     .inputs = {{{n, in}}, parameter({in, out})},
                     .forward = [](Tape& t, Inputs x) {
                       return std::vector{linear_transposed(t, x[0], cast_to_compute(t, x[1]))};
                     }});
  cases.push_back({.name = "linear_projection_in_both_directions",
                   .inputs = {{{5, 4}}, parameter({6, 4})},
                   .forward = [](Tape& t, Inputs x) {
                     const Var w = cast_to_compute(t, x[1]);
                     return std::vector{linear_transposed(t, linear(t, x[0], w, {}), w)};
                   }});
  cases.push_back({.name = "linear_concat_two_parts",
                   .inputs = {{{4, 5}}, parameter({3, 5}), parameter({2, 5})},
                   .forward = [](Tape& t, Inputs x) {
                     return std::vector{linear_concat(t, x[0], operands(t, x.subspan(1)), {})};
                   }});
  cases.push_back({.name = "linear_concat_three_parts_with_biases",
                   .inputs = {{{3, 6}},
                              parameter({4, 6}),
                              parameter({1, 6}),
                              parameter({5, 6}),
                              parameter({4}),
                              parameter({1}),
                              parameter({5})},
                   .forward = [](Tape& t, Inputs x) {
                     return std::vector{linear_concat(t, x[0], operands(t, x.subspan(1, 3)), x.subspan(4, 3))};
                   }});
  cases.push_back({.name = "linear_concat_of_one_weight",
                   .inputs = {{{3, 6}}, parameter({4, 6}), parameter({4})},
                   .forward = [](Tape& t, Inputs x) {
                     const std::array weights{cast_to_compute(t, x[1]), cast_to_compute(t, x[1])}, biases{x[2], x[2]};
                     return std::vector{linear_concat(t, x[0], weights, biases)};
                   }});
}

void add_layer_norm(Cases& cases) {
  for (const auto& [n, d] : {std::pair<int64_t, int64_t>{1, 1}, {1, 5}, {3, 7}, {18, 65}, {33, 520}, {2, 2056}})
    cases.push_back({.name = "layer_norm_" + std::to_string(n) + "x" + std::to_string(d),
                     .inputs = {{{n, d}}, parameter({d}), parameter({d})},
                     .forward = [](Tape& t, Inputs x) { return std::vector{layer_norm(t, x[0], x[1], x[2])}; }});
}

void add_normalize_rows(Cases& cases) {
  for (const auto& [n, d] : {std::pair<int64_t, int64_t>{1, 2}, {3, 7}, {18, 65}, {33, 520}})
    cases.push_back({.name = "normalize_rows_" + std::to_string(n) + "x" + std::to_string(d),
                     .inputs = {{{n, d}}},
                     .forward = [](Tape& t, Inputs x) { return std::vector{normalize_rows(t, x[0])}; }});
}

void add_dropout(Cases& cases) {
  for (const auto& [n, d] : {std::pair<int64_t, int64_t>{1, 1}, {7, 37}, {5, 64}, {130, 131}, {200, 24}}) {
    const std::string size = std::to_string(n) + "x" + std::to_string(d);
    cases.push_back({.name = "dropout_" + size,
                     .inputs = {{{n, d}}},
                     .forward =
                         [](Tape& t, Inputs x) {
                           return std::vector{dropout(t, x[0], {kP, 4})};
                         },
                     .training = true});
    for (const bool training : {false, true}) {
      const std::string suffix = size + (training ? "_dropped" : "");
      cases.push_back({.name = "residual_" + suffix,
                       .inputs = {{{n, d}}, {{n, d}}},
                       .forward =
                           [](Tape& t, Inputs x) {
                             return std::vector{residual_dropout(t, x[0], x[1], {}, {kP, 5})};
                           },
                       .training = training});
      cases.push_back({.name = "residual_bias_" + suffix,
                       .inputs = {{{n, d}}, {{n, d}}, parameter({d})},
                       .forward =
                           [](Tape& t, Inputs x) {
                             return std::vector{residual_dropout(t, x[0], x[1], x[2], {kP, 5})};
                           },
                       .training = training});
      for (const Activation kind : all_values<Activation>()) {
        const std::string name = name_of(kind) + std::string("_");
        cases.push_back({.name = name + "bias_" + suffix,
                         .inputs = {{{n, d}, Values::away_from_zero}, parameter({d}, Values::tiny)},
                         .forward =
                             [kind](Tape& t, Inputs x) {
                               return std::vector{activation_dropout(t, x[0], x[1], kind, {kP, 6})};
                             },
                         .training = training});
        cases.push_back({.name = name + suffix,
                         .inputs = {{{n, d}, Values::away_from_zero}},
                         .forward =
                             [kind](Tape& t, Inputs x) {
                               return std::vector{activation_dropout(t, x[0], {}, kind, {kP, 6})};
                             },
                         .training = training});
      }
    }
  }
  // The gradient's memory changes hands between a sum and its residual input: here more uses follow and precede.
  cases.push_back({.name = "residual_of_one_input",
                   .inputs = {{{5, 9}}},
                   .forward =
                       [](Tape& t, Inputs x) {
                         const Var y = residual_dropout(t, x[0], x[0], {}, {kP, 5});
                         const Var z = residual_dropout(t, y, x[0], {}, {kP, 6});
                         return std::vector{residual_dropout(t, z, y, {}, {kP, 7})};
                       },
                   .training = true});
}

void add_rows(Cases& cases) {
  const auto add = [&](const std::string& name, int64_t rows, int64_t d, Ids ids, int32_t pad) {
    cases.push_back(
        {.name = "embedding_" + name, .inputs = {parameter({rows, d})}, .forward = [ids, pad](Tape& t, Inputs x) {
           return std::vector{embedding(t, x[0], ids, 1.7, pad)};
         }});
    if (pad >= 0)  // finite differences do not know that the padding row is left out
      cases.back().surrogate = [ids, pad](Tape& t, Inputs x) {
        const int64_t cols = x[0].value.cols();
        std::copy_n(x[1].value.as<double>() + pad * cols, cols, x[0].value.as<double>() + pad * cols);
        return std::vector{embedding(t, x[0], ids, 1.7, -1)};
      };
  };
  add("one", 1, 1, {0}, -1);
  add("repeated_ids", 6, 5, {3, 0, 3, 5, 3, 0, 1}, -1);
  add("padding", 6, 5, {3, 1, 3, 1, 5}, 1);
  add("large", 40, 130, scattered<int32_t>(300, 37), 1);
  add("frequent_ids", 3, 136, Ids(41, 2), -1);
  // Negative ids fill up a shape. 15 and 7 are what -1 looks like in 4 and 3 bits.
  add("nothing_at_some_places", 16, 3, {15, -1, 3, -1, 15, 7, 0, -1, 15}, -1);
  add("nothing_at_the_end", 8, 3, {7, 0, 7, -1, -1}, -1);
  cases.push_back({.name = "select_rows", .inputs = {{{6, 3}}}, .forward = [](Tape& t, Inputs x) {
                     return std::vector{select_rows(t, x[0], Ids{4, 0, 4}), select_rows(t, x[0], Ids{2, -1, 4, -1})};
                   }});
  cases.push_back({.name = "assemble_rows",
                   .inputs = {{{2, 5}}, {{3, 5}}, {{1, 5}}},
                   .forward =
                       [](Tape& t, Inputs x) {
                         const Ids a{5, 0}, b{1, 2, 4}, c{3};
                         const std::array parts{RowPart{x[0], a}, RowPart{x[1], b}, RowPart{x[2], c}};
                         return std::vector{assemble_rows(t, 6, 5, parts, 2.5)};
                       },
                   .single_use = true});
  cases.push_back({.name = "assemble_filled_up_rows",
                   .inputs = {{{4, 5}}, {{3, 5}}},
                   .forward =
                       [](Tape& t, Inputs x) {
                         const Ids a{2, 0, -1, -1}, b{1, 3, -1};
                         const std::array parts{RowPart{x[0], a}, RowPart{x[1], b}};
                         return std::vector{assemble_rows(t, 4, 5, parts, 2.5)};
                       },
                   .single_use = true});
  cases.push_back({.name = "select_columns", .inputs = {{{4, 6}}}, .forward = [](Tape& t, Inputs x) {
                     return std::vector{select_columns(t, x[0], 2, 3), select_columns(t, x[0], 0, 3),
                                        select_columns(t, x[0], 1, 2)};
                   }});
  cases.push_back({.name = "join_columns",
                   .inputs = {{{5, 3}}, {{5, 3}}, {{5, 3}}},
                   .forward = [](Tape& t, Inputs x) { return std::vector{join_columns(t, x)}; },
                   .single_use = true});
  cases.push_back({.name = "columns_apart_and_together", .inputs = {{{3, 8}}}, .forward = [](Tape& t, Inputs x) {
                     const std::array parts{select_columns(t, x[0], 1, 2), select_columns(t, x[0], 0, 2)};
                     return std::vector{join_columns(t, parts)};
                   }});
  const Ids positions{2, 3, 1, 2, 3, 4};
  cases.push_back(
      {.name = "learned_positions", .inputs = {{{6, 5}}, parameter({6, 5})}, .forward = [positions](Tape& t, Inputs x) {
         return std::vector{add_positions(t, x[0], x[1], positions, -1)};
       }});
  cases.push_back({.name = "fixed_positions",
                   .inputs = {{{6, 5}}},
                   .forward =
                       [positions](Tape& t, Inputs x) {
                         return std::vector{add_positions(t, x[0], {x[0].value, nullptr}, positions, 1)};
                       },
                   .surrogate =
                       [positions](Tape& t, Inputs x) {
                         return std::vector{add_positions(t, x[0], {x[1].value, nullptr}, positions, 1)};
                       }});
}

void add_attention(Cases& cases) {
  const auto add = [&](int64_t batch, int64_t time, int64_t heads, int64_t dim, bool causal, bool dropped) {
    cases.push_back({.name = "attention_" + std::to_string(time) + "_dim" + std::to_string(dim) +
                             (causal ? "_causal" : "_full") + (dropped ? "_dropped" : ""),
                     .inputs = {{{batch * time, 3 * heads * dim}}},
                     .forward =
                         [=](Tape& t, Inputs x) {
                           return std::vector{attention(t, x[0], batch, time, heads, causal, {kP, 9})};
                         },
                     .training = dropped,
                     .single_use = true});
  };
  for (const bool causal : {true, false}) {
    for (const bool dropped : {false, true}) {
      add(1, 1, 1, 1, causal, dropped);
      add(2, 1, 2, 5, causal, dropped);
      add(2, 7, 2, 5, causal, dropped);
      add(1, 65, 2, 5, causal, dropped);
      add(2, 130, 2, 5, causal, dropped);
    }
  }
  add(1, 64, 1, 16, true, true);
  // Head dimensions that a GPU computes with tensor cores in 16-bit types, and times beside and across its tiles.
  for (const bool causal : {true, false})
    for (const bool dropped : {false, true}) {
      add(2, 70, 2, 64, causal, dropped);
      add(1, 150, 1, 128, causal, dropped);
    }
  add(2, 129, 1, 32, true, true);
  add(1, 64, 2, 32, false, true);
  add(1, 1, 3, 64, true, true);
  add(1, 257, 1, 64, true, false);
  const auto add_in_place = [&](int64_t batch, int64_t time, int64_t heads, int64_t dim, bool causal) {
    const int64_t rows = batch * time, width = heads * dim;
    cases.push_back({.name = "attention_in_place_" + std::to_string(time) + "_dim" + std::to_string(dim) +
                             (causal ? "_causal" : "_full"),
                     .inputs = {{{rows, width}}, {{rows, 2 * width}}},
                     .forward =
                         [=](Tape& t, Inputs x) {
                           const Var y = copy_of(t, x[0]);
                           attention_in_place(t, y.value, x[1].value, batch, time, heads, causal);
                           return std::vector{y};
                         },
                     .differentiable = false});
  };
  for (const bool causal : {true, false}) {
    add_in_place(2, 130, 2, 5, causal);
    add_in_place(2, 257, 2, 64, causal);
  }
}

/// Sequences of these lengths in `rows` rows. The first is the last in the matrix, and `gap` rows of nobody's are
/// before each.
struct Laid {
  Ids begins, lengths;
  int64_t rows = 0;

  explicit Laid(Ids of, int32_t gap = 0) : begins(of.size()), lengths(std::move(of)) {
    for (size_t i = lengths.size(); i-- > 0;) {
      begins[i] = static_cast<int32_t>(rows) + gap;
      rows = begins[i] + lengths[i];
    }
  }
  Sequences sequences() const { return {begins, lengths, *std::max_element(lengths.begin(), lengths.end())}; }
};

void add_sequences(Cases& cases) {
  const auto add_self = [&](const std::string& name, const Laid& laid, int64_t heads, int64_t dim, bool causal,
                            bool dropped) {
    cases.push_back({.name = "sequences_" + name + "_dim" + std::to_string(dim) + (causal ? "_causal" : "_full") +
                             (dropped ? "_dropped" : ""),
                     .inputs = {{{laid.rows, 3 * heads * dim}}},
                     .forward =
                         [=](Tape& t, Inputs x) {
                           return std::vector{attention(t, x[0], laid.sequences(), heads, causal, {kP, 9})};
                         },
                     .training = dropped,
                     .single_use = true});
  };
  const auto add_cross = [&](const std::string& name, const Laid& queries, const Laid& keys, int64_t heads, int64_t dim,
                             bool dropped) {
    cases.push_back({.name = "cross_attention_" + name + "_dim" + std::to_string(dim) + (dropped ? "_dropped" : ""),
                     .inputs = {{{queries.rows, heads * dim}}, {{keys.rows, 2 * heads * dim}}},
                     .forward =
                         [=](Tape& t, Inputs x) {
                           return std::vector{
                               cross_attention(t, x[0], x[1], queries.sequences(), keys.sequences(), heads, {kP, 9})};
                         },
                     .training = dropped,
                     .single_use = true});
  };
  for (const bool causal : {true, false})
    for (const bool dropped : {false, true}) {
      add_self("mixed", Laid({3, 70, 1, 7}), 2, 5, causal, dropped);
      add_self("gaps", Laid({64, 0, 65, 2}, 3), 2, 5, causal, dropped);
      add_self("mixed", Laid({1, 130, 20}), 2, 64, causal, dropped);
    }
  add_self("long", Laid({5, 150, 129, 1}, 1), 1, 32, true, true);
  add_self("long", Laid({70, 131}), 1, 128, false, true);
  add_self("nothing", Laid({0, 0}, 4), 1, 3, true, false);
  for (const bool dropped : {false, true}) {
    add_cross("one", Laid({1}), Laid({1}), 1, 1, dropped);
    add_cross("mixed", Laid({3, 70, 1}), Laid({66, 2, 9}), 2, 5, dropped);
    add_cross("gaps", Laid({0, 65, 2, 0}, 2), Laid({4, 5, 130, 0}, 1), 2, 5, dropped);
    add_cross("mixed", Laid({1, 30, 131}), Laid({70, 1, 130}), 2, 64, dropped);
  }
  add_cross("more_queries", Laid({131, 4}, 2), Laid({3, 33}, 5), 1, 32, true);
  add_cross("wide", Laid({20, 4}), Laid({3, 33}, 5), 1, 128, true);
  add_cross("more_keys", Laid({1, 1, 1}, 1), Laid({3, 290, 17}, 20), 2, 32, true);
}

void add_cross_entropy(Cases& cases) {
  const auto add = [&](const std::string& name, int64_t n, int64_t words, Ids targets, Ids rows, int64_t losses,
                       double smoothing = 0.0, int64_t behind = 0) {
    const int64_t classes = words - behind;
    cases.push_back({.name = "cross_entropy_" + name,
                     .inputs = {{{n, words}}},
                     .forward =
                         [=](Tape& t, Inputs x) {
                           const Tensor sums = t.arena.tensor({losses}, DType::f64);
                           t.k.fill(sums, 0.25);
                           cross_entropy(t, sums, x[0], classes, targets, rows, smoothing);
                           return std::vector{Var{sums, nullptr}};
                         },
                     .single_use = true});
  };
  add("one_word", 2, 1, {0, 0}, {}, 2);
  add("plain", 4, 7, {6, 0, 3, 3}, {}, 4);
  add("ignored_rows", 5, 9, {-1, 2, -1, 8, 0}, {}, 5);
  add("mapped_rows", 3, 6, {5, -1, 1}, {4, 0, 2}, 5);
  add("filled_up_rows", 4, 6, {5, 2, -1, -1}, {4, 0, -1, -1}, 5);
  add("large", 40, 603, scattered<int32_t>(40, 603), {}, 40);
  add("smooth", 5, 9, {-1, 2, -1, 8, 0}, {}, 5, 0.1);
  add("smooth_large", 40, 603, scattered<int32_t>(40, 603), {}, 40, 0.3);
  // As an output head does it: what is behind the classes comes from nobody.
  cases.push_back({.name = "cross_entropy_of_linear_concat",
                   .inputs = {{{9, 5}}, parameter({70, 5}), parameter({2, 5})},
                   .forward = [](Tape& t, Inputs x) {
                     const Tensor sums = t.arena.tensor({9}, DType::f64);
                     t.k.fill(sums, 0.0);
                     const Var logits = linear_concat(t, x[0], operands(t, x.subspan(1)), {}, logit_columns(t, 72));
                     cross_entropy(t, sums, logits, 72, scattered<int32_t>(9, 72), {});
                     return std::vector{Var{sums, nullptr}};
                   }});
  // Of a masked LM: neither the words nor their biases are whole packs, and their rows are.
  cases.push_back({.name = "cross_entropy_of_words_with_biases",
                   .inputs = {{{90, 5}}, parameter({75, 5}), parameter({75})},
                   .forward = [](Tape& t, Inputs x) {
                     const Tensor sums = t.arena.tensor({90}, DType::f64);
                     t.k.fill(sums, 0.0);
                     const Var logits =
                         linear_concat(t, x[0], operands(t, x.subspan(1, 1)), x.subspan(2), logit_columns(t, 75));
                     cross_entropy(t, sums, logits, 75, scattered<int32_t>(90, 75), {}, 0.1);
                     return std::vector{Var{sums, nullptr}};
                   }});
  add("padded", 5, 12, {-1, 2, -1, 8, 0}, {}, 5, 0.0, 3);
  add("padded_smooth", 5, 12, {-1, 2, -1, 8, 0}, {}, 5, 0.1, 3);
  add("padded_large", 40, 640, scattered<int32_t>(40, 603), {}, 40, 0.0, 37);
}

void add_squared_error(Cases& cases) {
  for (const auto& [n, d] : {std::pair<int64_t, int64_t>{1, 1}, {5, 2}, {33, 3}}) {
    std::vector<float> targets;
    for (int64_t i = 0; i < n * d; ++i) targets.push_back(0.25f * static_cast<float>(i % 7 - 3));
    cases.push_back({.name = "squared_error_" + std::to_string(n) + "x" + std::to_string(d),
                     .inputs = {{{n, d}}},
                     .forward = [targets](Tape& t, Inputs x) {
                       return std::vector{Var{squared_error(t, x[0], targets), nullptr}};
                     }});
  }
}

void add_block_noise(Cases& cases) {
  constexpr double kNoise = 0.4;
  constexpr uint64_t kId = 77;
  using Use = std::function<Var(Tape&, const Var& x, const Var& weight)>;
  const auto add = [&](const std::string& name, int64_t block, std::vector<OpInput> inputs, const Use& use) {
    cases.push_back(
        {.name = "block_noise_" + name,
         .inputs = std::move(inputs),
         .forward = [=](Tape& t,
                        Inputs x) { return std::vector{use(t, x[0], block_noise(t, x[1], block, kNoise, kId))}; },
         .training = true,
         // Straight-through: the noise of the unperturbed weight is a constant that is added to the weight.
         .surrogate =
             [=](Tape& t, Inputs x) {
               const Tensor& clean = x[3].value;
               const Tensor w = t.tensor(clean.shape);
               t.k.block_noise(w, clean, block, kNoise, t.key(Purpose::noise, kId));
               t.k.axpy(w, x[1].value, 1.0, 1);
               t.k.axpy(w, clean, -1.0, 1);
               return std::vector{use(t, x[0], {w, nullptr})};
             }});
  };
  const Use multiply = [](Tape& t, const Var& x, const Var& w) { return linear(t, x, w, {}); };
  add("of_single_columns", 1, {{{3, 6}}, parameter({5, 6})}, multiply);
  add("of_eight_columns", 8, {{{5, 24}}, parameter({9, 24})}, multiply);
  add("large", 8, {{{3, 160}}, parameter({110, 160})}, multiply);
  add("of_a_tied_table", 4, {{{1, 1}}, parameter({9, 8})}, [](Tape& t, const Var&, const Var& w) {
    return linear(t, embedding(t, w, Ids{2, 8, 2}, 1.0, -1), w, {});
  });
}

/// Of blocks and of clusters, by one value and by a codebook; in part and altogether.
void add_replace_blocks(Cases& cases) {
  struct Case {
    std::string name;
    int64_t rows, cols, d, k, values;
    bool clusters;
    double p, scale = 1.0;
  };
  const auto add = [&](const Case& c) {
    const auto codes = std::make_shared<const std::vector<uint16_t>>(scattered<uint16_t>(c.rows * c.cols / c.d, c.k));
    const auto noisy = [c, codes](Tape& t, const Var& w, const Tensor& values) {
      return replace_blocks(t, w,
                            {.values = values,
                             .codes = c.values > 1 || c.clusters ? uploaded(t, *codes) : nullptr,
                             .clusters = c.clusters ? c.k : 0,
                             .p = c.p,
                             .scale = c.scale,
                             .id = 79});
    };
    cases.push_back(
        {.name = "replace_blocks_" + c.name,
         .inputs = {{{3, c.cols}}, parameter({c.rows, c.cols}), parameter({c.values, c.d})},
         .forward =
             [noisy](Tape& t, Inputs x) {
               return std::vector{linear(t, x[0], cast_to_compute(t, noisy(t, x[1], x[2].value)), {})};
             },
         .training = true,
         // Straight-through: what the noise adds to the unperturbed weight is a constant, and so are the values.
         .surrogate =
             [noisy](Tape& t, Inputs x) {
               const Tensor &clean = x[4].value, w = t.tensor(clean.shape);
               t.k.copy(w, noisy(t, {clean, nullptr}, x[5].value).value);
               t.k.axpy(w, x[1].value, 1.0, 1);
               t.k.axpy(w, clean, -1.0, 1);
               return std::vector{linear(t, x[0], {w, nullptr}, {})};
             }});
  };
  add({"by_centroids", 9, 24, 8, 5, 5, false, 0.4});
  add({"by_centroids_of_single_columns", 5, 6, 1, 3, 3, false, 0.4});
  add({"by_the_mean", 9, 24, 4, 1, 1, false, 0.4});
  add({"by_centroids_of_drawn_clusters", 9, 24, 4, 17, 17, true, 0.4});
  add({"by_zeros_of_drawn_clusters", 9, 24, 8, 7, 1, true, 0.4, 1.6});
  add({"altogether", 7, 16, 8, 4, 4, false, 1.0});
  add({"altogether_by_cluster", 7, 16, 8, 4, 4, true, 1.0});
  add({"large", 110, 160, 8, 256, 256, false, 0.1});
  add({"large_by_cluster", 110, 160, 4, 200, 200, true, 0.3});
}

void add_pq_weight(Cases& cases) {
  const auto add = [&](const std::string& name, int64_t rows, int64_t cols, int64_t k, int64_t d, bool mean) {
    const auto codes = scattered<uint16_t>(rows * cols / d, k - 1);  // the last centroid has no block
    std::vector<int64_t> counts(static_cast<size_t>(k), 0);
    for (const uint16_t code : codes) ++counts[code];
    const Shape shape{rows, cols};
    OpCase op{.name = "pq_weight_" + name, .inputs = {parameter({k, d})}};
    const auto shared = std::make_shared<const std::pair<std::vector<uint16_t>, std::vector<int64_t>>>(codes, counts);
    op.forward = [=](Tape& t, Inputs x) {
      const int64_t* sizes = mean ? uploaded(t, shared->second) : nullptr;
      return std::vector{pq_weight(t, x[0], uploaded(t, shared->first), sizes, shape)};
    };
    if (mean)  // a mean over blocks is the gradient of centroids that move more slowly
      op.surrogate = [=](Tape& t, Inputs x) {
        auto moved = x[0].value.span<double>();
        const auto start = x[1].value.span<double>();
        for (size_t i = 0; i < moved.size(); ++i) {
          const auto count = static_cast<double>(std::max<int64_t>(shared->second[i / static_cast<size_t>(d)], 1));
          moved[i] = start[i] + (moved[i] - start[i]) / count;
        }
        return std::vector{pq_weight(t, x[0], shared->first.data(), nullptr, shape)};
      };
    cases.push_back(std::move(op));
  };
  for (const bool mean : {false, true}) {
    const std::string suffix = mean ? "_mean" : "_sum";
    add("4" + suffix, 10, 12, 6, 4, mean);
    add("5" + suffix, 7, 15, 4, 5, mean);
    add("8" + suffix, 17, 16, 9, 8, mean);
    add("16" + suffix, 3, 32, 3, 16, mean);
    add("large" + suffix, 150, 128, 40, 8, mean);
  }
}

/// Choices of types that no op makes.
void add_types(Cases& cases) {
  const auto add = [&](const std::string& name, std::vector<OpInput> inputs, OpCase::Forward forward) {
    cases.push_back(
        {.name = "types_" + name, .inputs = std::move(inputs), .forward = std::move(forward), .differentiable = false});
  };
  add("of_sums", {{{40, 7}}, parameter({40, 7})}, [](Tape& t, Inputs x) {
    const Var narrow = copy_of(t, x[0]), wide = copy_of(t, x[1]), cast{t.parameter_tensor({40, 7}), nullptr};
    t.k.axpy(narrow.value, x[1].value, 0.5, 1);
    t.k.axpy(wide.value, x[0].value, 0.5, 1);
    t.k.copy(cast.value, x[0].value);
    return std::vector{narrow, wide, cast};
  });
  add("of_block_noise", {parameter({9, 24})}, [](Tape& t, Inputs x) {
    const Var y{t.parameter_tensor({9, 24}), nullptr};
    t.k.block_noise(y.value, x[0].value, 8, 0.4, t.key(Purpose::noise, 5));
    return std::vector{y};
  });
  add("of_replaced_blocks", {parameter({9, 24}), parameter({4, 8})}, [](Tape& t, Inputs x) {
    const Var y{t.parameter_tensor({9, 24}), nullptr};
    t.k.replace_blocks(y.value, x[0].value, x[1].value, uploaded(t, scattered<uint16_t>(27, 4)), 0, 0.4, 1.0,
                       t.key(Purpose::noise, 5));
    return std::vector{y};
  });
  add("of_scaled_rows", {parameter({17, 40}), {{17, 40}}, parameter({17})}, [](Tape& t, Inputs x) {
    const Var narrow = copy_of(t, x[1]), wide = copy_of(t, x[0]), dots = copy_of(t, x[2]), others = copy_of(t, x[2]);
    t.k.scale_rows(narrow.value, x[0].value, x[2].value, 1);
    t.k.scale_rows(wide.value, wide.value, x[2].value, 0);
    t.k.row_dots(dots.value, x[1].value, x[0].value, 1);
    t.k.row_dots(others.value, x[1].value, x[1].value, 0);
    return std::vector{narrow, wide, dots, others};
  });
  const auto codes = std::make_shared<const std::vector<uint16_t>>(scattered<uint16_t>(17 * 2, 9));
  add("of_pq_weights", {parameter({9, 8}), {{17, 16}}}, [codes](Tape& t, Inputs x) {
    const Var w{t.parameter_tensor({17, 16}), nullptr}, sums = copy_of(t, x[0]);
    t.k.pq_decode(w.value, x[0].value, codes->data());
    t.k.pq_centroid_grad(sums.value, x[1].value, codes->data(), nullptr, 1);
    return std::vector{w, sums};
  });
}

}  // namespace

const std::vector<OpCase>& ops_table() {
  static const Cases table = [] {
    Cases cases;
    for (const auto add :
         {add_linear,         add_layer_norm,    add_normalize_rows, add_dropout,       add_rows,
          add_attention,      add_sequences,     add_cross_entropy,  add_squared_error, add_block_noise,
          add_replace_blocks, add_fake_quantize, add_pq_weight,      add_scale_rows,    add_vision,
          add_decisions,      add_kernels,       add_types,          add_int8,          add_codes})
      add(cases);
    return cases;
  }();
  return table;
}

}  // namespace qn::test
