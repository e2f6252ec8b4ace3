#include "nn/layers/output_head.h"

#include <algorithm>
#include <array>
#include <cmath>
#include <vector>

#include "nn/layers/row_parts.h"
#include "ops/host_access.h"

namespace qn {

Var word_logits(Tape& tape, const Var& x, std::span<Weight* const> weights, const Var& bias,
                const ActivationPoint& input) {
  int64_t classes = 0;
  for (const Weight* weight : weights) classes += weight->rows();
  const std::span<const Var> biases(&bias, bias.value.defined() ? 1 : 0);
  return linear_concat(tape, x, weights, biases, input.quantizer(), logit_columns(tape, classes));
}

namespace {

/// cross_entropy() of logits_of(x), some rows at a time where that is possible: logits are as wide as the vocabulary.
/// Row i of x has target i, one of `classes`, and, where there are `rows`, belongs to loss rows[i].
template <typename LogitsOf>
void losses_of(Tape& tape, const Tensor& losses, const Var& x, int64_t classes, std::span<const int32_t> targets,
               std::span<const int32_t> rows, double smoothing, const LogitsOf& logits_of) {
  if (!may_work_in_parts(tape)) return cross_entropy(tape, losses, logits_of(x), classes, targets, rows, smoothing);
  constexpr int64_t kLogits = int64_t{1} << 22;  // 16 MiB in fp32
  const int64_t most = std::clamp<int64_t>(kLogits / classes / 16 * 16, 16, 512);
  for_row_parts(tape, x.value.rows(), most, [&](int64_t begin, int64_t count) {
    const auto part = [&](std::span<const int32_t> all) {
      return all.subspan(static_cast<size_t>(begin), static_cast<size_t>(count));
    };
    const Tensor of_part = rows.empty() ? losses.reshaped({losses.elements(), 1}).row_slice(begin, count) : losses;
    cross_entropy(tape, of_part.reshaped({of_part.elements()}), logits_of({x.value.row_slice(begin, count), nullptr}),
                  classes, part(targets), rows.empty() ? rows : part(rows), smoothing);
  });
}

class Softmax : public OutputHead {
 public:
  Softmax(const Scope& scope, int64_t vocabulary, int64_t width, Weight* tied_to) : weight_(tied_to) {
    static const std::string kName = "output_projection.weight";
    if (tied_to != nullptr)
      scope.tie(kName, groups::kSoftmax, &weight_);
    else
      weight_ = scope.linear(kName, groups::kSoftmax, vocabulary, width,
                             init::normal(1.0 / std::sqrt(static_cast<double>(width))));
    input_ = scope.activation("output_projection.input");
  }

  void losses(Tape& tape, const Var& x, std::span<const int32_t> targets, const Tensor& losses,
              double smoothing) override {
    losses_of(tape, losses, x, weight_->rows(), targets, {}, smoothing,
              [&](const Var& part) { return logits(tape, part); });
  }

  Tensor log_probabilities(Tape& tape, const Var& x) override {
    const Var y = logits(tape, x);
    const Tensor result = tape.parameter_tensor({y.value.rows(), weight_->rows()});
    tape.k.log_softmax(result, y.value);
    return result;
  }

 private:
  Var logits(Tape& tape, const Var& x) { return word_logits(tape, (*input_)(tape, x), {&weight_, 1}, {}, *input_); }
  Weight* weight_;
  ActivationPoint* input_;
};

class AdaptiveSoftmax : public OutputHead {
 public:
  AdaptiveSoftmax(const Scope& scope, const Bands& bands, int64_t width, const AdaptiveSoftmaxOptions& options);
  void losses(Tape& tape, const Var& x, std::span<const int32_t> targets, const Tensor& losses,
              double smoothing) override;
  Tensor log_probabilities(Tape& tape, const Var& x) override;

 private:
  struct Tail {
    Weight* projection = nullptr;  // [dim, width], or [width, dim] when shared with the input side
    Weight* words = nullptr;       // [size, dim]
    bool shared_projection = false;
    ActivationPoint *input = nullptr, *words_input = nullptr;
  };
  Var dropped(Tape& tape, const Var& x, uint64_t site) const { return dropout(tape, x, {dropout_, site}); }
  Var head_logits(Tape& tape, const Var& x) const;
  Var tail_logits(Tape& tape, const Var& x, size_t i) const;
  int64_t head_size() const { return bands_.size(0) + bands_.count() - 1; }
  void build_tail(const Scope& scope, const AdaptiveSoftmaxOptions& options, int64_t width, int64_t band);

  static constexpr uint64_t kFirstSite = 8;  // dropout sites of the model's output end
  Bands bands_;
  double dropout_;
  Weight* head_words_ = nullptr;     // the whole head when nothing is tied
  Weight* head_clusters_ = nullptr;  // [tails, width], only beside tied words
  ActivationPoint* head_input_ = nullptr;
  std::vector<Tail> tails_;
};

AdaptiveSoftmax::AdaptiveSoftmax(const Scope& scope, const Bands& bands, int64_t width,
                                 const AdaptiveSoftmaxOptions& options)
    : bands_(bands), dropout_(options.dropout) {
  const int64_t n_tails = bands.count() - 1, c0 = bands.size(0);
  const Scope own = scope.in("adaptive_softmax");
  head_input_ = own.activation("head.input");
  tails_.resize(static_cast<size_t>(n_tails));  // ties keep pointers into it: sized once
  if (options.tied_tables != nullptr) {
    QN_CHECK(bands.dim(0) == width, "tied adaptive weights need equal input and output dimensions, got {} and {}",
             bands.dim(0), width);
    head_words_ = options.tied_tables->table(0);
    own.tie("head.word_proj.weight", groups::kSoftmax, &head_words_);
    head_clusters_ =
        own.linear("head.class_proj.weight", groups::kSoftmax, n_tails, width, init::xavier(n_tails, width));
  } else {
    head_words_ = own.linear("head.weight", groups::kSoftmax, c0 + n_tails, width, init::xavier(c0 + n_tails, width));
  }
  for (int64_t band = 1; band <= n_tails; ++band) build_tail(own, options, width, band);
}

void AdaptiveSoftmax::build_tail(const Scope& scope, const AdaptiveSoftmaxOptions& options, int64_t width,
                                 int64_t band) {
  Tail& tail = tails_[static_cast<size_t>(band - 1)];
  const Scope own = scope.in(fmt::format("tail.{}", band - 1));
  const int64_t dim = bands_.dim(band), size = bands_.size(band);
  tail.input = own.activation("0.input");
  tail.words_input = own.activation("2.input");
  tail.shared_projection = options.tied_projections != nullptr;
  if (tail.shared_projection) {
    tail.projection = options.tied_projections->projection(band);
    own.tie("0.weight", groups::kSoftmax, &tail.projection);
  } else {
    tail.projection = own.linear("0.weight", groups::kSoftmax, dim, width, init::xavier(dim, width));
  }
  if (options.tied_tables != nullptr) {
    tail.words = options.tied_tables->table(band);
    own.tie("2.weight", groups::kSoftmax, &tail.words);
  } else {
    tail.words = own.linear("2.weight", groups::kSoftmax, size, dim, init::xavier(size, dim));
  }
}

Var AdaptiveSoftmax::head_logits(Tape& tape, const Var& x) const {
  const Var input = (*head_input_)(tape, x);
  const std::array<Weight*, 2> parts{head_words_, head_clusters_};
  return word_logits(tape, input, {parts.data(), head_clusters_ != nullptr ? 2U : 1U}, {}, *head_input_);
}

Var AdaptiveSoftmax::tail_logits(Tape& tape, const Var& x, size_t i) const {
  const Tail& tail = tails_[i];
  const Var input = (*tail.input)(tape, x);
  const Var z = tail.shared_projection ? tail.projection->linear_transposed(tape, input)
                                       : tail.projection->linear(tape, input, {}, tail.input->quantizer());
  const Var features = (*tail.words_input)(tape, dropped(tape, z, kFirstSite + 1 + i));
  return word_logits(tape, features, {&tail.words, 1}, {}, *tail.words_input);
}

void AdaptiveSoftmax::losses(Tape& tape, const Var& x, std::span<const int32_t> targets, const Tensor& losses,
                             double smoothing) {
  QN_ASSERT(smoothing == 0.0);
  const Var features = dropped(tape, x, kFirstSite);
  const Bands::Split split = bands_.split(targets, tape.pass().row_multiple);
  std::vector<int32_t> head_targets(targets.begin(), targets.end());
  for (size_t i = 0; i < tails_.size(); ++i)
    for (const int32_t row : split.rows[i + 1])
      if (row >= 0)
        head_targets[static_cast<size_t>(row)] = static_cast<int32_t>(bands_.size(0)) + static_cast<int32_t>(i);
  losses_of(tape, losses, features, head_size(), head_targets, {}, 0.0,
            [&](const Var& part) { return head_logits(tape, part); });
  for (size_t i = 0; i < tails_.size(); ++i) {
    const std::vector<int32_t>& rows = split.rows[i + 1];
    if (rows.empty()) continue;
    const Var selected = select_rows(tape, features, rows);
    losses_of(tape, losses, selected, tails_[i].words->rows(), split.ids[i + 1], rows, 0.0,
              [&](const Var& part) { return tail_logits(tape, part, i); });
  }
}

Tensor AdaptiveSoftmax::log_probabilities(Tape& tape, const Var& x) {
  const int64_t n = x.value.rows(), c0 = bands_.size(0),
                vocabulary = bands_.first(bands_.count() - 1) + bands_.size(bands_.count() - 1);
  const Tensor result = tape.parameter_tensor({n, vocabulary});
  const auto log_softmax = [&](const Tensor& logits, int64_t classes) {
    const bool in_place = logits.dtype == tape.parameter_dtype() && logits.cols() == classes;
    const Tensor y = in_place ? logits : tape.parameter_tensor({n, classes});
    tape.k.log_softmax(y, logits);
    return HostView(tape.k, y);
  };
  const HostView head_view = log_softmax(head_logits(tape, x).value, head_size());
  const Tensor& head = head_view.view();
  write_on_host(tape.k, result, [&](const Tensor& host) {
    const auto fill = [&](auto tag) {
      using T = decltype(tag);
      for (int64_t r = 0; r < n; ++r) std::copy_n(head.as<T>() + r * head.cols(), c0, host.as<T>() + r * vocabulary);
      for (size_t i = 0; i < tails_.size(); ++i) {
        const auto band = static_cast<int64_t>(i) + 1;
        const HostView tail_view = log_softmax(tail_logits(tape, x, i).value, bands_.size(band));
        const Tensor& tail = tail_view.view();
        for (int64_t r = 0; r < n; ++r) {
          const T cluster = head.as<T>()[r * head.cols() + c0 + static_cast<int64_t>(i)];
          for (int64_t c = 0; c < bands_.size(band); ++c)
            host.as<T>()[r * vocabulary + bands_.first(band) + c] = cluster + tail.as<T>()[r * tail.cols() + c];
        }
      }
    };
    tape.parameter_dtype() == DType::f64 ? fill(double{}) : fill(float{});
  });
  return result;
}

}  // namespace

std::unique_ptr<OutputHead> make_softmax(const Scope& scope, int64_t vocabulary, int64_t width, Weight* tied_to) {
  return std::make_unique<Softmax>(scope, vocabulary, width, tied_to);
}

std::unique_ptr<OutputHead> make_adaptive_softmax(const Scope& scope, const Bands& bands, int64_t width,
                                                  const AdaptiveSoftmaxOptions& options) {
  return std::make_unique<AdaptiveSoftmax>(scope, bands, width, options);
}

}  // namespace qn
