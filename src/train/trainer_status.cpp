// What a trainer records of its run beside losses: that it began, went on and ended (metrics.jsonl), and how it stands
// right now (status.json).
#include <unistd.h>

#include <cmath>

#include "core/machine.h"
#include "train/shown_work.h"
#include "train/trainer.h"

namespace qn {

/// By the groups of weights; what belongs to no weight (biases, norms) is "other".
void Trainer::count_parameters() {
  original_parameters_ = module_.parameters().elements();
  double left = static_cast<double>(original_parameters_);
  for (const auto& weight : module_.weights().all()) {
    const auto values = static_cast<double>(weight->shape().elements());
    parameters_of_groups_[weight->group()] += values;
    left -= values;
  }
  if (left > 0.0) parameters_of_groups_["other"] = left;
}

void Trainer::write_record(std::vector<MetricField> fields) {
  fields.push_back({"time", std::round(unix_time() * 1e3) / 1e3});
  const std::string line = metrics_->write(fields);
  if (events_) events_->add(line);
}

void Trainer::restart_events() {
  if (!config_.train.tensorboard) return;
  const std::vector<std::byte> text = read_file_bytes(folder_->metrics());
  events_.emplace(folder_->dir(), std::string_view(reinterpret_cast<const char*>(text.data()), text.size()));
}

void Trainer::start_status(bool resumed) {
  StatusRecord record;
  record.run = folder_->run();
  record.command = options_.quantize ? "quantize" : "train";
  record.program = QN_VERSION;
  record.host = host_name();
  record.pid = ::getpid();
  record.ranks = comm_.size();
  record.phase = "starting";
  record.update = state_.update;
  record.max_updates = max_updates();
  record.epoch = task_.epoch();
  record.stage = ipq_ ? ipq_->stages_done() : 0;
  record.stages = ipq_ ? ipq_->stages() : 0;
  record.saved_update = folder_->newest_good().update;
  record.saved_file = folder_->newest_good().path.filename().string();
  record.patience = config_.comm.watchdog_seconds;
  std::vector<MetricField> fields{{"kind", std::string("start")},
                                  {"update", state_.update},
                                  {"resumed", resumed},
                                  {"command", record.command},
                                  {"run", record.run},
                                  {"program", record.program},
                                  {"host", record.host},
                                  {"ranks", record.ranks},
                                  {"max_updates", record.max_updates},
                                  {"stages", record.stages},
                                  {"samples", task_.sample_words().many},
                                  {"parameters", parameters_of_groups_},
                                  {"config", config_text_}};
  write_record(std::move(fields));
  status_.emplace(folder_->dir(), std::move(record));
}

/// The estimate of a run of whose k-means none has been seen yet leaves them out.
double Trainer::seconds_left(int64_t update) {
  const double each = status_->seconds_per_update(update);
  if (max_updates() == 0 || each <= 0.0) return -1.0;
  const int64_t stages = ipq_ ? ipq_->stages() - ipq_->stages_done() : 0;
  return each * static_cast<double>(std::max<int64_t>(max_updates() - update, 0)) +
         std::max(kmeans_seconds_, 0.0) * static_cast<double>(stages);
}

void Trainer::note_update(const UpdateStats& stats) {
  const double left = seconds_left(stats.update);
  status_->edit([&](StatusRecord& r) {
    r.update = stats.update;
    r.epoch = stats.epoch;
    r.latest = fmt::format("loss {:.3f}{}{}", stats.loss_base2, stats.metrics.empty() ? "" : " | ", stats.metrics);
    r.seconds_left = left;
  });
}

void Trainer::note_kmeans(int64_t stage, int64_t iteration, std::map<std::string, double> objectives) {
  if (!metrics_) return;
  write_record({{"kind", std::string("kmeans")},
                {"update", state_.update},
                {"stage", stage},
                {"iteration", iteration},
                {"objective", std::move(objectives)}});
}

void Trainer::note_saved() {
  if (!status_) return;
  const CheckpointWriter::Good& good = folder_->newest_good();
  status_->edit([&](StatusRecord& r) {
    r.saved_update = good.update;
    r.saved = good.written;
    r.saved_file = good.path.filename().string();
    r.stage = ipq_ ? ipq_->stages_done() : 0;
  });
}

void Trainer::write_end(const std::string& outcome, const std::string& message) {
  if (!status_) return;
  note_saved();
  write_record({{"kind", std::string("end")}, {"update", state_.update}, {"outcome", outcome}, {"message", message}});
  status_->end(value_named<RunCondition>(outcome, "outcome"), message);
}

/// A run that quantizes is finished when it has packed.
void Trainer::finish_status(Outcome outcome) {
  if (outcome == Outcome::stopped)
    write_end("stopped",
              folder_ && folder_->failed_too_long() ? "nothing could be saved for too long" : "asked to by a signal");
  else if (!options_.quantize)
    write_end("finished", "");
}

void Trainer::pack(const std::function<std::vector<MetricField>()>& work) {
  try {
    std::vector<MetricField> fields;
    {
      const ShownWork shown("packing", progress(), status());
      fields = work();
    }
    if (!metrics_) return;
    fields.insert(fields.begin(), {{"kind", std::string("packed")}, {"update", state_.update}});
    write_record(std::move(fields));
    write_end("finished", "");
  } catch (const std::exception& error) {
    write_end("failed", error.what());
    throw;
  }
}

}  // namespace qn
