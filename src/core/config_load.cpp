// From files to one ConfigNode: inheritance and overrides.
#include <fmt/ranges.h>

#include <algorithm>

#include "core/config_node.h"
#include "core/file_kind.h"
#include "core/text.h"

namespace qn {
namespace {

namespace fs = std::filesystem;

/// The document as a map; an empty file is an empty map.
ConfigNode parse_document(const std::string& text, const std::string& source, std::vector<ConfigProblem>& problems) {
  ConfigNode root = parse_yaml(text, source, true, problems);
  QN_CHECK(root.kind == ConfigNode::Kind::map || root.kind == ConfigNode::Kind::null,
           "{}: a config is a list of lines 'key: value', this is {}", source,
           root.kind == ConfigNode::Kind::list ? "a YAML list" : "a single text");
  root.kind = ConfigNode::Kind::map;
  root.where = {source, 0};
  return root;
}

/// "; did you mean 'x.yaml'?" for the most similar YAML file next to `path`, or nothing.
std::string similar_file(const fs::path& path) {
  std::vector<std::string> names;
  std::error_code error;
  const fs::path folder = path.has_parent_path() ? path.parent_path() : fs::path(".");
  for (fs::directory_iterator it(folder, error), end; !error && it != end; it.increment(error)) {
    if (it->path().extension() == ".yaml" || it->path().extension() == ".yml") {
      names.push_back(it->path().filename().string());
    }
  }
  std::sort(names.begin(), names.end());
  const std::vector<std::string> best = nearest(path.filename().string(), names);
  if (best.empty()) return "";
  return fmt::format("; did you mean '{}'?", (path.parent_path() / best[0]).string());
}

/// `named_by` is the place of the `inherits` that asks for the file, or empty.
std::string read_text(const fs::path& path, const std::string& named_by) {
  const std::string prefix = named_by.empty() ? "" : named_by + ": ";
  std::error_code error;
  QN_CHECK(fs::exists(path, error), "{}there is no config file '{}'{}", prefix, path.string(), similar_file(path));
  return read_text_file(path);
}

/// Takes the `inherits` key out of a document: the files it names.
std::vector<std::string> take_inherits(ConfigNode& root) {
  const ConfigNode* node = root.find("inherits");
  if (node == nullptr) return {};
  std::vector<std::string> names;
  const bool is_list = node->kind == ConfigNode::Kind::list;
  for (const ConfigNode& item : is_list ? node->children : std::vector<ConfigNode>{*node}) {
    QN_CHECK(item.kind == ConfigNode::Kind::scalar && !item.scalar.empty(),
             "{}: 'inherits' expects a file name such as base.yaml, or a list of them", item.where.text());
    names.push_back(item.scalar);
  }
  root.children.erase(root.children.begin() + (node - root.children.data()));
  return names;
}

class Loader {
 public:
  explicit Loader(std::vector<ConfigProblem>& problems) : problems_(problems) {}

  ConfigNode load(const fs::path& path, const std::string& named_by) {
    std::error_code error;
    const fs::path canonical = fs::weakly_canonical(path, error);
    const auto seen =
        std::find_if(chain_.begin(), chain_.end(), [&](const Link& l) { return l.canonical == canonical; });
    if (seen != chain_.end()) {
      std::vector<std::string> names;
      for (auto it = seen; it != chain_.end(); ++it) names.push_back(it->shown);
      names.push_back(seen->shown);
      fail("{}: 'inherits' goes in a circle: {}", named_by, fmt::join(names, " -> "));
    }
    chain_.push_back({canonical, path.string()});
    ConfigNode own = parse_document(read_text(path, named_by), path.string(), problems_);
    const std::string place = own.find("inherits") != nullptr ? own.find("inherits")->where.text() : "";
    ConfigNode merged(ConfigNode::Kind::map, own.where);
    for (const std::string& name : take_inherits(own)) {
      merge_config_nodes(merged, load((path.parent_path() / name).lexically_normal(), place));
    }
    merge_config_nodes(merged, std::move(own));
    chain_.pop_back();
    return merged;
  }

 private:
  struct Link {
    fs::path canonical;
    std::string shown;
  };
  std::vector<ConfigProblem>& problems_;
  std::vector<Link> chain_;
};

void apply_override(ConfigTreeData& tree, const std::string& text) {
  const std::string source = "--set " + text;
  const size_t equals = text.find('=');
  const std::string key = text.substr(0, equals);
  const bool bad_key = key.empty() || key.front() == '.' || key.back() == '.' || key.find("..") != std::string::npos ||
                       key.find_first_of(" \t") != std::string::npos;
  if (equals == std::string::npos || bad_key) {
    tree.problems.push_back({{source, 0}, "write it as key=value, for example --set schedule.lr=0.5"});
    return;
  }
  if (key == "inherits") {
    tree.problems.push_back({{source, 0}, "'inherits' can only be given in a file"});
    return;
  }
  // Wrap the value in one map per part of the key, innermost first, so that overriding is merging.
  ConfigNode node = parse_yaml(text.substr(equals + 1), source, false, tree.problems);
  for (std::string rest = key; !rest.empty();) {
    const size_t dot = rest.rfind('.');
    node.key = dot == std::string::npos ? rest : rest.substr(dot + 1);
    ConfigNode parent(ConfigNode::Kind::map, {source, 0});
    parent.children.push_back(std::move(node));
    node = std::move(parent);
    rest.resize(dot == std::string::npos ? 0 : dot);
  }
  merge_config_nodes(tree.root, std::move(node));
}

ConfigTree finish_tree(ConfigTreeData tree, const std::vector<std::string>& overrides) {
  for (const std::string& text : overrides) apply_override(tree, text);
  return ConfigTree(std::make_shared<const ConfigTreeData>(std::move(tree)));
}

}  // namespace

ConfigTree load_config_tree(const std::filesystem::path& path, const std::vector<std::string>& overrides) {
  ConfigTreeData tree;
  tree.root = Loader(tree.problems).load(path, "");
  return finish_tree(std::move(tree), overrides);
}

ConfigTree config_tree_from_text(std::string_view text, const std::string& name,
                                 const std::vector<std::string>& overrides) {
  ConfigTreeData tree;
  tree.root = parse_document(std::string(text), name, tree.problems);
  if (const ConfigNode* inherits = tree.root.find("inherits")) {
    fail("{}: 'inherits' is not possible here: this config stands alone", inherits->where.text());
  }
  return finish_tree(std::move(tree), overrides);
}

}  // namespace qn
