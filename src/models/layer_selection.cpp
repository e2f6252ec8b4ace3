#include "models/layer_selection.h"

#include <algorithm>
#include <charconv>
#include <sstream>

#include "core/error.h"

namespace qn {
namespace {

constexpr const char* kEveryOther = "every-other";

int64_t layer_number(const std::string& item, const std::string& text) {
  const size_t first = item.find_first_not_of(' '), last = item.find_last_not_of(' ');
  const std::string number = first == std::string::npos ? "" : item.substr(first, last - first + 1);
  int64_t value = -1;
  const auto [end, error] = std::from_chars(number.data(), number.data() + number.size(), value);
  QN_CHECK_USAGE(error == std::errc() && end == number.data() + number.size() && value >= 0,
                 "layers to keep '{}': '{}' is no number of a layer; write \"0,2,4\" (layers count from 0) or {}", text,
                 item, kEveryOther);
  return value;
}

std::vector<int64_t> listed_layers(const std::string& text) {
  std::vector<int64_t> layers;
  std::istringstream in(text + ',');
  for (std::string item; std::getline(in, item, ',');) layers.push_back(layer_number(item, text));
  std::sort(layers.begin(), layers.end());
  const auto twice = std::adjacent_find(layers.begin(), layers.end());
  QN_CHECK_USAGE(twice == layers.end(), "layers to keep '{}': layer {} is there twice", text, *twice);
  return layers;
}

std::vector<int64_t> every_other_group(int64_t layers, int64_t size) {
  std::vector<int64_t> kept;
  for (int64_t i = 0; i < layers; ++i)
    if (i / size % 2 == 0) kept.push_back(i);
  return kept;
}

void check_groups(const std::vector<int64_t>& kept, const std::string& text, int64_t size) {
  const auto keeps = [&](int64_t layer) { return std::binary_search(kept.begin(), kept.end(), layer); };
  for (const int64_t layer : kept)
    for (int64_t other = layer - layer % size; other < layer - layer % size + size; ++other)
      QN_CHECK_USAGE(keeps(other),
                     "layers to keep '{}': layers {} to {} have their weights in common (model.share_layers: {}): keep "
                     "all of them or none",
                     text, layer - layer % size, layer - layer % size + size - 1, size);
}

}  // namespace

std::optional<int64_t> LayerSelection::count(const std::string& text) {
  if (text == kEveryOther) return std::nullopt;
  return std::ssize(listed_layers(text));
}

LayerSelection::LayerSelection(const std::string& text, int64_t layers, int64_t share_layers)
    : kept_(text == kEveryOther ? every_other_group(layers, share_layers) : listed_layers(text)) {
  QN_CHECK_USAGE(kept_.back() < layers, "layers to keep '{}': there is no layer {}, the model has layers 0 to {}", text,
                 kept_.back(), layers - 1);
  check_groups(kept_, text, share_layers);
}

std::optional<std::string> LayerSelection::renamed(const std::string& name) const {
  constexpr std::string_view kLayersScope = ".layers.";
  const size_t found = name.find(kLayersScope);
  if (found == std::string::npos) return name;
  const size_t begin = found + kLayersScope.size();
  int64_t layer = -1;
  const auto [end, error] = std::from_chars(name.data() + begin, name.data() + name.size(), layer);
  if (error != std::errc()) return name;
  const auto place = std::lower_bound(kept_.begin(), kept_.end(), layer);
  if (place == kept_.end() || *place != layer) return std::nullopt;
  return name.substr(0, begin) + std::to_string(place - kept_.begin()) +
         name.substr(static_cast<size_t>(end - name.data()));
}

}  // namespace qn
