// Plans as texts, plans of runs that go on, and plans for people.
#include "compress/run_plan.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <map>

#include "compress/explain.h"
#include "small_net.h"
#include "support/capture.h"

namespace qn::test {
namespace {

using testing::AllOf;
using testing::HasSubstr;

/// The weights of a layer and its table.
std::vector<WeightInfo> infos() {
  const std::string layer = "decoder.layers.0.";
  return {{.name = "decoder.embed_tokens.weight", .kind = WeightKind::embedding, .rows = 1000, .cols = 64},
          {.name = layer + "self_attn.q_proj.weight", .rows = 64, .cols = 64},
          {.name = layer + "self_attn.k_proj.weight", .rows = 64, .cols = 64},
          {.name = layer + "fc1.weight", .rows = 128, .cols = 64},
          {.name = layer + "fc2.weight", .rows = 64, .cols = 128}};
}

std::vector<std::string> names(const std::vector<WeightPlan>& weights) {
  std::vector<std::string> result;
  for (const WeightPlan& w : weights) result.push_back(w.name);
  return result;
}

QuantizationPlan rich_plan() {
  QuantizationPlan plan = make_plan(default_quantize_rules(), infos());
  plan.weights[0].noise = {.form = "zero_blocks", .rate = 0.1, .block = 8};
  plan.weights[1].quantizer = make_quantizer("int", {{"bits", "4"}, {"range", "channel"}});
  plan.weights[2].noise = {.form = "int", .rate = 1.0, .block = 1, .options = {{"bits", "4"}, {"range", "tensor"}}};
  plan.activations = {{"decoder.layers.0.fc1.input", 8}, {"decoder.layers.0.fc2.input", 4}};
  plan.round_activations = true;
  plan.weights.push_back({.name = "decoder.output_projection.weight",
                          .group = "softmax",
                          .rows = plan.weights[0].rows,
                          .cols = plan.weights[0].cols,
                          .tied_to = plan.weights[0].name});
  plan.cut_ties = true;
  plan.storage = {.side = ValueStorage::int8, .dense = ValueStorage::f32};
  return plan;
}

TEST(RunPlan, TakesAnyQuantizerByTypeAndOptions) {
  const SmallNet net;
  IpqConfig ipq;
  ipq.quantizer = "int bits=3 range=channel";
  const QuantizationPlan plan = make_run_plan(net, {}, &ipq);
  EXPECT_EQ(plan.quantized().size(), net.weights().all().size());
  for (const WeightPlan& weight : plan.quantized()) EXPECT_EQ(weight.quantizer->text(), "int3 channel") << weight.name;
  const auto problem = [](const char* text) {
    return error_of([&] { read_config<IpqConfig>(config_tree_from_text(text, "x.yaml")); });
  };
  EXPECT_THAT(problem("quantizer: int bits=9"), AllOf(HasSubstr("quantizer"), HasSubstr("2 to 8 are possible")));
  EXPECT_THAT(problem("{quantizer: int bits=4 range=tensor, method: int}"), HasSubstr("leave them out"));
}

TEST(RunPlan, OneQuantizerOfAllLeavesLearnedPositions) {
  class Net : public Module {
   public:
    Net() {
      for (const char* name : {"embed_tokens", "embed_positions", "fc1"})
        root().in("decoder").weight(std::string(name) + ".weight", "any", WeightKind::linear, {8, 8}, {});
    }
  };
  IpqConfig ipq;
  ipq.method = QuantizeMethod::integer;
  EXPECT_THAT(names(make_run_plan(Net(), {}, &ipq).quantized()),
              testing::ElementsAre("decoder.embed_tokens.weight", "decoder.fc1.weight"));
  ipq.stages = {"."};
  EXPECT_EQ(make_run_plan(Net(), {}, &ipq).quantized().size(), 3);
}

TEST(RunPlan, AWeightHasNoMoreCentroidsThanAQuarterOfItsBlocks) {
  const SmallNet net;
  IpqConfig ipq;
  ipq.quantizer = "pq block_size=8 n_centroids=13 row_scales=rms";
  const QuantizationPlan plan = make_run_plan(net, {}, &ipq);
  for (const auto& [name, centroids] : std::map<std::string, int64_t>{{"embed", 12}, {"fc1", 13}, {"fc2", 13}}) {
    const auto kmeans = plan.find("net." + name + ".weight")->quantizer->kmeans();
    EXPECT_EQ(kmeans->block_size, 8);
    EXPECT_EQ(kmeans->n_centroids, centroids) << name;
    EXPECT_TRUE(kmeans->row_scales);
  }
  EXPECT_EQ(plan_to_text(resume_run_plan(plan_to_text(plan), net, {}, &ipq)), plan_to_text(plan));
}

TEST(RunPlan, RowScalesAreAnOptionOfProductQuantization) {
  const SmallNet net;
  IpqConfig ipq;
  QuantizeRules rules = default_quantize_rules();
  rules.row_scales = {{".*embed", "here"}, {".*fc1", "here"}};
  for (const WeightPlan& weight : make_plan(rules, infos()).quantized())
    EXPECT_EQ(weight.quantizer->kmeans()->row_scales,
              weight.name.ends_with("embed_tokens.weight") || weight.name.ends_with("fc1.weight"))
        << weight.name;
  rules.row_scales = {{"emb", "ipq.row_scales"}};
  EXPECT_THAT(error_of([&] { make_plan(rules, infos()); }), HasSubstr("ipq.row_scales: pattern 'emb' matches no"));
  ipq.quantizer = "pq block_size=4 n_centroids=8 row_scales=rms";
  EXPECT_TRUE(make_run_plan(net, {}, &ipq).quantized()[0].quantizer->kmeans()->row_scales);
  const auto problem = [](const char* text) {
    return error_of([&] { read_config<IpqConfig>(config_tree_from_text(text, "x.yaml")); });
  };
  EXPECT_THAT(problem("{row_scales: [.], method: int}"), HasSubstr("'row_scales' are of product quantization"));
  NoiseConfig noise;
  noise.pq = 0.1;
  noise.form = BlockNoise::exact;
  EXPECT_THAT(error_of([&] { make_run_plan(net, noise, &ipq); }), HasSubstr("do not know scales of rows"));
  noise.form = BlockNoise::zero;
  EXPECT_NO_THROW(make_run_plan(net, noise, &ipq));
}

TEST(PlanText, ThereAndBack) {
  const QuantizationPlan plan = rich_plan();
  const std::string text = plan_to_text(plan);
  const QuantizationPlan back = plan_from_text(text, "x");
  EXPECT_EQ(plan_to_text(back), text);
  EXPECT_TRUE(quantization_differences(plan, back).empty());
  ASSERT_EQ(back.weights.size(), plan.weights.size());
  EXPECT_EQ(names(back.weights), names(plan.weights));
  EXPECT_EQ(back.stages, 3);
  EXPECT_TRUE(back.cut_ties);
  EXPECT_EQ(back.storage.side, ValueStorage::int8);
  EXPECT_EQ(back.weights[0].noise, plan.weights[0].noise);
  EXPECT_EQ(back.weights[1].quantizer->text(), "int4 channel");
  EXPECT_EQ(back.weights[2].noise, plan.weights[2].noise);
  EXPECT_EQ(back.activations, plan.activations);
  EXPECT_TRUE(back.round_activations);
  EXPECT_EQ(plan_to_text(plan).find("histogram"), std::string::npos) << "as older programs wrote it";
  QuantizationPlan searched = plan;
  for (ActivationPlan& activation : searched.activations) activation.range = RangeMethod::histogram;
  EXPECT_EQ(plan_from_text(plan_to_text(searched), "test").activations, searched.activations);
  EXPECT_EQ(back.weights.back().tied_to, plan.weights[0].name);
}

TEST(PlanText, DamagedTextsAreRefused) {
  EXPECT_THAT(error_of([] { plan_from_text("{", "x.h5"); }), AllOf(HasSubstr("x.h5"), HasSubstr("no JSON")));
  EXPECT_THAT(error_of([] { plan_from_text("{}", "x.h5"); }), HasSubstr("no quantization plan"));
  std::string text = plan_to_text(rich_plan());
  text.replace(text.find("\"int\""), 5, "\"ant\"");
  EXPECT_THAT(error_of([&] { plan_from_text(text, "x.h5"); }), HasSubstr("'ant'"));
  const auto expect = [](const char* was, const char* now, const char* message) {
    std::string changed = plan_to_text(rich_plan());
    ASSERT_NE(changed.find(was), std::string::npos) << changed;
    changed.replace(changed.find(was), std::string(was).size(), now);
    EXPECT_THAT(error_of([&] { plan_from_text(changed, "x.h5"); }), AllOf(HasSubstr("x.h5"), HasSubstr(message)));
  };
  expect("\"stages\":3", "\"stages\":1", "stage is 1: a whole number from 0 to 0");
  expect("[1000,64", "[-1000,64", "'decoder.embed_tokens.weight': rows is -1000");
  expect("[1000,64", "[1e12,64", "rows is 1000000000000.0");
  expect("\"rate\":0.1", "\"rate\":-0.1", "rate of the noise");
  expect("\"usual\"", "\"storage\"", "says 'storage' twice");
}

TEST(PlanText, OlderTextsAreRead) {
  const QuantizationPlan plan = plan_from_text(
      R"({"stages":1,"cut_ties":false,"storage":{"side":"fp16","dense":"fp32"},)"
      R"("quantizers":[{"type":"int","options":{"bits":"4","range":"channel"}}],)"
      R"("noises":[{"form":"zero_blocks","rate":0.1,"block":8}],)"
      R"("weights":{"a":{"shape":[8,4],"stage":0,"quantizer":0,"noise":0},"b":{"shape":[2,3],"tied_to":"a"}}})",
      "x");
  ASSERT_EQ(plan.weights.size(), 2U);
  EXPECT_EQ(plan.weights[0].quantizer->text(), "int4 channel");
  EXPECT_EQ(plan.weights[0].noise.rate, 0.1);
  EXPECT_EQ(plan.weights[1].rows, 2);
  EXPECT_EQ(plan.weights[1].tied_to, "a");
  EXPECT_EQ(plan.weights[1].stage, -1);
  EXPECT_EQ(names(plan_from_text(plan_to_text(plan), "x").weights), names(plan.weights));
}

TEST(PlanText, DifferencesNameTheWeights) {
  const QuantizationPlan plan = rich_plan();
  QuantizationPlan other = plan;
  other.cut_ties = false;
  other.weights[3].quantizer = make_quantizer("pq", {{"block_size", "2"}, {"n_centroids", "16"}});
  other.weights[4].stage = -1;
  EXPECT_THAT(quantization_differences(plan, other),
              testing::ElementsAre(HasSubstr("ties"), AllOf(HasSubstr(plan.weights[3].name), HasSubstr("pq d=2 K=16")),
                                   AllOf(HasSubstr(plan.weights[4].name), HasSubstr("now not quantized"))));
}

TEST(RunPlan, GoesOnAsStoredOrSaysWhatDiffers) {
  const SmallNet net;
  NoiseConfig noise{.pq = 0.1, .block_size = 4, .groups = {"ffn"}};
  IpqConfig ipq;
  ipq.stages = {R"(net\.fc1)", R"(net\.embed)"};
  const QuantizationPlan plan = make_run_plan(net, noise, &ipq);
  const std::string stored = plan_to_text(plan);
  const LogCapture log;
  EXPECT_EQ(plan_to_text(resume_run_plan(stored, net, noise, &ipq)), stored);
  EXPECT_THAT(log.text(), testing::Not(HasSubstr("warning")));
  noise.pq = 0.3;  // of the configuration, not of the plan
  ipq.stages[1] = R"(net\.fc2)";
  EXPECT_THAT(error_of([&] { resume_run_plan(stored, net, noise, &ipq); }),
              AllOf(HasSubstr("the rules have changed"), HasSubstr("net.embed.weight: stage 2, pq d=8"),
                    HasSubstr("net.fc2.weight: not quantized, now stage 2"), HasSubstr("--fresh"),
                    testing::Not(HasSubstr("net.fc1.weight: "))));
  ipq.rules = "gone.yaml";  // then the stored plan is all there is
  const QuantizationPlan resumed = resume_run_plan(stored, net, noise, &ipq);
  EXPECT_TRUE(quantization_differences(plan, resumed).empty());
  EXPECT_EQ(resumed.find("net.fc1.weight")->noise.rate, 0.3);
  EXPECT_THAT(log.text(), HasSubstr("gone.yaml"));
}

TEST(Explain, TellsEveryWeightAndEveryQuantizedActivation) {
  const SmallNet net;
  IpqConfig ipq;
  ipq.stages = {R"(net\.fc1)"};
  QuantizationPlan plan = make_run_plan(net, {.pq = 0.1, .block_size = 4, .groups = {"ffn"}}, &ipq);
  EXPECT_THAT(explain(plan, net), HasSubstr("no activations are quantized"));
  plan.activations = {{"net.fc1.input", 8}};
  const std::string text = explain(plan, net);
  for (const auto& w : net.weights().all()) EXPECT_THAT(text, HasSubstr(w->name()));
  EXPECT_THAT(text, AllOf(HasSubstr("zero_blocks p=0.1 d=4"), HasSubstr("pq d=8 K=16 fp16"),
                          HasSubstr("net.fc1.input  8 bits"), testing::Not(HasSubstr("net.fc1.output"))));
  EXPECT_THAT(explain_json(plan, net),
              AllOf(HasSubstr(R"("name":"net.fc1.weight","shape":[32,16],"noise":{"form":"zero_blocks","rate":0.1,)"),
                    HasSubstr(R"("stage":1,"storage":"pq d=8 K=16 fp16")"),
                    HasSubstr(R"({"name":"net.fc1.input","bits":8,"range":"tensor"})")));
}

TEST(RunPlan, PlansOfOtherModelsAreRefused) {
  const SmallNet net;
  const std::string stored = plan_to_text(dense_plan(infos()));
  EXPECT_THAT(error_of([&] { resume_run_plan(stored, net, {}, nullptr); }), HasSubstr("belongs to another model"));
}

}  // namespace
}  // namespace qn::test
