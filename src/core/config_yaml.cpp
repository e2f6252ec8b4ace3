// YAML text to ConfigNode, straight from the parser's events: each has its line, and duplicate keys are still visible.
#include <yaml-cpp/eventhandler.h>
#include <yaml-cpp/exceptions.h>
#include <yaml-cpp/parser.h>

#include <map>
#include <optional>
#include <sstream>

#include "core/config_node.h"

namespace qn {
namespace {

using Kind = ConfigNode::Kind;

// Aliases can describe exploding trees in a few bytes; no config comes near this size.
constexpr int kMaxNodes = 100000;

int count_nodes(const ConfigNode& node) {
  int count = 1;
  for (const ConfigNode& child : node.children) count += count_nodes(child);
  return count;
}

class Builder final : public YAML::EventHandler {
 public:
  Builder(std::string source, bool in_file, std::vector<ConfigProblem>& problems)
      : source_(std::move(source)), in_file_(in_file), problems_(problems), root_(Kind::null, {source_, 0}) {}

  ConfigNode take_root() { return std::move(root_); }

  void OnDocumentStart(const YAML::Mark& mark) override {
    QN_CHECK(!started_, "{}: a second YAML document or leftover text begins here; a config is one document",
             locate(mark).text());
    started_ = true;
  }
  void OnDocumentEnd() override {}
  void OnNull(const YAML::Mark& mark, YAML::anchor_t anchor) override { leaf(Kind::null, mark, "", anchor); }
  void OnScalar(const YAML::Mark& mark, const std::string& tag, YAML::anchor_t anchor,
                const std::string& value) override {
    leaf(Kind::scalar, mark, tag, anchor, value);
  }
  void OnAlias(const YAML::Mark& mark, YAML::anchor_t anchor) override {
    const auto it = anchors_.find(anchor);
    QN_CHECK(it != anchors_.end(), "{}: a YAML alias ('*name') inside the very thing it names", locate(mark).text());
    count(count_nodes(it->second), mark);
    place(it->second, mark);
  }
  void OnSequenceStart(const YAML::Mark& mark, const std::string& tag, YAML::anchor_t anchor,
                       YAML::EmitterStyle::value) override {
    open(Kind::list, mark, tag, anchor);
  }
  void OnMapStart(const YAML::Mark& mark, const std::string& tag, YAML::anchor_t anchor,
                  YAML::EmitterStyle::value) override {
    open(Kind::map, mark, tag, anchor);
  }
  void OnSequenceEnd() override { close(); }
  void OnMapEnd() override { close(); }

 private:
  struct Key {
    std::string name;
    ConfigLocation where;
    bool usable;  // else its problem has been noted and the value is dropped
  };
  struct Open {
    ConfigNode node;
    YAML::Mark mark;
    YAML::anchor_t anchor;
    std::optional<Key> key;  // of the value that comes next
  };

  ConfigLocation locate(const YAML::Mark& mark) const {
    return {source_, in_file_ && !mark.is_null() ? mark.line + 1 : 0};
  }

  void count(int nodes, const YAML::Mark& mark) {
    nodes_ += nodes;
    QN_CHECK(nodes_ <= kMaxNodes, "{}: this config is too large: more than {} values", locate(mark).text(), kMaxNodes);
  }

  /// A node of its own in the text (no alias).
  ConfigNode begin(Kind kind, const YAML::Mark& mark, const std::string& tag) {
    count(1, mark);
    ConfigNode node(kind, locate(mark));
    node.quoted = tag == "!" || tag == "tag:yaml.org,2002:str";  // the parser's tag for quotes is "!", for none "?"
    if (!tag.empty() && tag != "?" && !node.quoted) {
      problems_.push_back({node.where, fmt::format("YAML tags such as '{}' are not supported; remove it", tag)});
    }
    return node;
  }

  void leaf(Kind kind, const YAML::Mark& mark, const std::string& tag, YAML::anchor_t anchor,
            const std::string& text = "") {
    ConfigNode node = begin(kind, mark, tag);
    node.scalar = text;
    complete(std::move(node), mark, anchor);
  }

  void open(Kind kind, const YAML::Mark& mark, const std::string& tag, YAML::anchor_t anchor) {
    open_.push_back({begin(kind, mark, tag), mark, anchor, {}});
  }

  void close() {
    Open done = std::move(open_.back());
    open_.pop_back();
    complete(std::move(done.node), done.mark, done.anchor);
  }

  void complete(ConfigNode node, const YAML::Mark& mark, YAML::anchor_t anchor) {
    if (anchor != YAML::NullAnchor) anchors_[anchor] = node;
    place(std::move(node), mark);
  }

  /// Hands a complete node to the list or map around it, as an item, a key or a value.
  void place(ConfigNode node, const YAML::Mark& mark) {
    if (open_.empty()) {
      root_ = std::move(node);
      return;
    }
    Open& parent = open_.back();
    if (parent.node.kind == Kind::list) {
      node.where = locate(mark);
      parent.node.children.push_back(std::move(node));
    } else if (!parent.key) {
      parent.key = make_key(parent.node, node, locate(mark));
    } else {
      node.key = parent.key->name;
      node.where = parent.key->where;
      if (parent.key->usable) parent.node.children.push_back(std::move(node));
      parent.key.reset();
    }
  }

  Key make_key(const ConfigNode& map, const ConfigNode& node, const ConfigLocation& where) {
    std::string problem;
    if (node.kind != Kind::scalar) {
      problem = "a key must be a plain word followed by ':'";
    } else if (node.scalar == "<<" && !node.quoted) {
      problem = "YAML merge keys ('<<') are not supported; use 'inherits: other.yaml'";
    } else if (const ConfigNode* first = map.find(node.scalar)) {
      problem =
          fmt::format("key '{}' is given twice, first at {}; remove one of them", node.scalar, first->where.text());
    }
    if (!problem.empty()) problems_.push_back({where, problem});
    return {node.scalar, where, problem.empty()};
  }

  std::string source_;
  bool in_file_;
  std::vector<ConfigProblem>& problems_;
  ConfigNode root_;
  std::vector<Open> open_;
  std::map<YAML::anchor_t, ConfigNode> anchors_;
  bool started_ = false;
  int nodes_ = 0;
};

}  // namespace

ConfigNode parse_yaml(const std::string& text, const std::string& source, bool in_file,
                      std::vector<ConfigProblem>& problems) {
  Builder builder(source, in_file, problems);
  try {
    std::istringstream stream(text);
    YAML::Parser parser(stream);
    while (parser.HandleNextDocument(builder)) {  // a second document ends the loop with an error
    }
  } catch (const YAML::Exception& e) {
    if (!in_file || e.mark.is_null()) fail("{}: not valid YAML: {}", source, e.msg);
    fail("{}:{}:{}: not valid YAML: {}", source, e.mark.line + 1, e.mark.column + 1, e.msg);
  }
  return builder.take_root();
}

}  // namespace qn
