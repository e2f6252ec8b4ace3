// Averages of a module over updates: of its parameters and of its running statistics.
#pragma once

#include <string>
#include <vector>

#include "core/config.h"
#include "nn/module.h"
#include "nn/state_dict.h"

namespace qn {

/// The section `train.ema`: exponential moving averages as timm's (ModelEmaV3).
struct EmaConfig {
  double decay = 0.0;
  bool warmup = false;
  int64_t start_update = 0;

  bool on() const { return decay > 0.0; }
  /// What the average counts when update number `update` (from 1) is added. With s = update - start_update - 1: 0 where
  /// s is not positive, which makes the average a copy; else `decay`, with warm-up at most 1 - (1 + s)^(-2/3).
  double decay_at(int64_t update) const;
  void visit(ConfigVisitor& v);
  void validate(const ConfigChecker& c) const;
};

class ModelAverage {
 public:
  /// Of a module with memory, which must outlive this and keep its parameters and buffers; at first as it is now.
  explicit ModelAverage(Module& module);

  /// average = decay * average + (1 - decay) * module
  void add(double decay);
  /// Averages change places with what is trained; twice: nothing has happened.
  void exchange();

  /// Names of entries: this and a parameter's or buffer's name.
  struct Prefixes {
    std::string parameters, buffers;
  };
  /// What is beside the module: averages, or in exchange what is trained. Loading throws qn::Error when a parameter is
  /// missing or of another shape; a buffer that is not there stays as it is.
  void save(const Prefixes& prefixes, StateDict& state) const;
  void load(const Prefixes& prefixes, const StateDict& state);
  size_t bytes() const;

 private:
  struct Statistic {
    ModuleBuffer* buffer;
    OwnedTensor average;
  };
  /// Calls function(trained, average) for everything that is averaged.
  template <typename F>
  void for_each(F&& function) const;

  Module& module_;
  OwnedTensor parameters_;  // as the store's values
  std::vector<Statistic> statistics_;
};

/// The module with averages in place, as long as this lives. Null: as it is.
class AveragesInPlace {
 public:
  explicit AveragesInPlace(ModelAverage* average) : average_(average) { exchange(); }
  ~AveragesInPlace() { exchange(); }
  AveragesInPlace(const AveragesInPlace&) = delete;
  AveragesInPlace& operator=(const AveragesInPlace&) = delete;

 private:
  void exchange() {
    if (average_ != nullptr) average_->exchange();
  }
  ModelAverage* average_;
};

/// A checkpoint of a run with moving averages has these as its parameters and buffers, and what is trained beside them.
inline const ModelAverage::Prefixes kTrained{"trained/parameters/", "trained/buffers/"};
bool holds_averages(const StateDict& state);

}  // namespace qn
