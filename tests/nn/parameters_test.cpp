// The parameter store, weights and ties, frequency bands, and the parameter counts of known models.
#include "nn/parameters.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>

#include "models/golden_model.h"
#include "models/language_model.h"
#include "nn/layers/bands.h"

namespace qn::test {
namespace {

using testing::ElementsAre;
using testing::HasSubstr;

// --- parameter store ---

void number(const Tensor& t, float first) {
  for (float& v : t.span<float>()) v = first++;
}

TEST(ParameterStore, NewLayoutKeepsValuesByName) {
  ParameterStore store;
  Parameter* a = store.add("a", {3, 5}, {});
  Parameter* b = store.add("b", {7}, {});
  store.add("c", {2, 2}, {});
  EXPECT_EQ(store.elements(), 26);
  store.allocate(DType::f32);
  number(a->value, 1);
  number(store.find("c")->value, 100);
  store.remove(b);
  Parameter* d = store.add("d", {4}, {});
  store.allocate(DType::f32);
  EXPECT_EQ(store.find("b"), nullptr);
  EXPECT_THAT(store.names(), ElementsAre("a", "c", "d"));
  EXPECT_EQ(store.elements(), 23);
  EXPECT_THAT(to_doubles(store.find("a")->value), ElementsAre(1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15));
  EXPECT_THAT(to_doubles(store.find("c")->value), ElementsAre(100, 101, 102, 103));
  EXPECT_THAT(to_doubles(d->value), ElementsAre(0, 0, 0, 0));
}

TEST(ParameterStore, TakesValuesFromElsewhere) {
  for (const DType dtype : {DType::f32, DType::f64}) {
    ParameterStore store;
    store.add("a", {3}, {});
    Parameter* b = store.add("b", {2, 3}, {});
    store.allocate(dtype);
    const std::vector<float> values{1, 2, 3, 4, 5, 6};
    store.set_values(*b, values);
    EXPECT_EQ(store.values_of(*b), values);
    EXPECT_THAT(to_doubles(b->value), ElementsAre(1, 2, 3, 4, 5, 6));
    EXPECT_THAT(store.values_of(*store.find("a")), ElementsAre(0, 0, 0));
    EXPECT_THAT([&] { store.set_values(*b, std::span(values).first(3)); },
                testing::ThrowsMessage<Error>(HasSubstr("give it 6 values, not 3")));
  }
}

TEST(ParameterStore, SlicesLieInTheFlatBuffersWithoutOverlap) {
  ParameterStore store;
  for (const char* name : {"a", "b", "c"}) store.add(name, {17}, {});
  store.allocate(DType::f64);
  int64_t end = 0;
  for (const auto& p : store.all()) {
    EXPECT_GE(p->offset, end);
    end = p->offset + p->shape.elements();
    EXPECT_EQ(p->value.data, store.values().as<double>() + p->offset);
    EXPECT_EQ(p->slot.grad.data, store.grads().as<double>() + p->offset);
    EXPECT_EQ(reinterpret_cast<uintptr_t>(p->value.data) % 64, 0U) << "not on a cache line";
  }
  EXPECT_LE(end, store.values().elements());
}

TEST(ParameterStore, GradientsNobodyWroteBecomeZero) {
  ParameterStore store;
  Parameter* used = store.add("used", {2}, {});
  Parameter* unused = store.add("unused", {2}, {});
  store.allocate(DType::f32);
  for (const Parameter* p : {used, unused}) number(p->slot.grad, 5);
  used->slot.touched = unused->slot.touched = true;
  store.begin_gradients();
  EXPECT_FALSE(used->slot.touched);
  used->slot.touched = true;
  store.finish_gradients();
  EXPECT_THAT(to_doubles(used->slot.grad), ElementsAre(5, 6));
  EXPECT_THAT(to_doubles(unused->slot.grad), ElementsAre(0, 0));
  EXPECT_FALSE(unused->slot.touched) << "zero is not the same as missing";
}

TEST(ParameterStore, NamesAreUnique) {
  ParameterStore store;
  store.add("a", {1}, {});
  EXPECT_THROW(store.add("a", {1}, {}), InternalError);
}

TEST(ParameterStore, InitialValuesDependOnSeedAndNameOnly) {
  const InitRule rule = init::normal(0.5, 1);
  ParameterStore one, two;
  Parameter* a = one.add("x", {40, 30}, rule);
  two.add("before", {11}, init::ones());
  Parameter* b = two.add("x", {40, 30}, rule);
  Parameter* other = two.add("y", {40, 30}, rule);
  Parameter* uniform = two.add("u", {1000}, init::uniform(0.25));
  one.allocate(DType::f32);
  two.allocate(DType::f32);
  one.initialize(7);
  two.initialize(7);
  EXPECT_EQ(to_doubles(a->value), to_doubles(b->value));
  EXPECT_NE(to_doubles(other->value), to_doubles(b->value));
  const std::vector<double> values = to_doubles(b->value);
  EXPECT_THAT(std::vector(values.begin() + 30, values.begin() + 60), testing::Each(0.0)) << "the padding row";
  double squares = 0.0;
  for (const double v : values) squares += v * v;
  EXPECT_NEAR(std::sqrt(squares / (39 * 30)), 0.5, 0.05);
  EXPECT_THAT(to_doubles(uniform->value), testing::Each(testing::AllOf(testing::Ge(-0.25), testing::Le(0.25))));
  one.initialize(8);
  EXPECT_NE(to_doubles(a->value), to_doubles(b->value));
}

// --- known models ---

ModelConfig adaptive(std::vector<int64_t> cutoffs) {
  ModelConfig c;
  c.prenorm = true;
  c.adaptive = {.cutoffs = std::move(cutoffs),
                .factor = 4.0,
                .dropout = 0.0,
                .input = true,
                .softmax = true,
                .tie_weights = true,
                .tie_projections = true};
  return c;
}

TEST(ParameterCounts, WikiText103RecipeIsKnownWithoutMemory) {
  ModelConfig c = adaptive({20000, 60000});
  c.layers = 16;
  c.embed_dim = 1024;
  c.ffn_dim = 4096;
  c.heads = 8;
  const auto model = make_language_model(c, 267744, 512);
  EXPECT_EQ(model->parameters().elements(), 246'933'504);
  EXPECT_FALSE(model->parameters().values().defined());
  EXPECT_FALSE(model->parameters().grads().defined());
}

TEST(ParameterCounts, SmallWikiText2Model) {
  ModelConfig c = adaptive({2000, 10000});
  c.layers = 6;
  c.embed_dim = 256;
  c.ffn_dim = 1024;
  c.heads = 4;
  EXPECT_EQ(make_language_model(c, 33280, 512)->parameters().elements(), 6'221'568);
}

// --- ties ---

TEST(Untie, GivesTiedUsesDenseWeightsOfTheirOwn) {
  ModelConfig c = adaptive({20, 40});
  c.layers = 1;
  c.embed_dim = 64;
  c.ffn_dim = 64;
  c.heads = 2;
  const auto model = make_language_model(c, 70, 16);
  ParameterStore& store = model->parameters();
  store.allocate(DType::f32);
  store.initialize(3);
  const std::string table = "decoder.embed_tokens.embeddings.1.0.weight",
                    tail = "decoder.adaptive_softmax.tail.0.2.weight";
  Weight* shared = model->weights().find(table);
  ASSERT_NE(shared, nullptr);
  EXPECT_THAT(model->weights().aliases_of(shared), ElementsAre(tail));
  const std::vector<double> values = to_doubles(shared->dense()->value);

  const std::vector<int32_t> source{2, 25, 30, 45, 8, 25}, target{25, 30, 45, 8, 25, 60};
  const TokenBatch batch{2, 3, source, target};
  Arena arena;
  Tape tape(cpu_kernels(), arena, DType::f32, {});
  const std::vector<double> losses = to_doubles(model->losses(tape, batch));

  const std::vector<Weight*> own = model->weights().untie(store, shared);
  ASSERT_EQ(own.size(), 1U);
  EXPECT_EQ(own[0]->name(), tail);
  EXPECT_EQ(own[0]->group(), groups::kSoftmax);
  EXPECT_TRUE(model->weights().aliases_of(shared).empty());
  store.allocate(DType::f32);
  EXPECT_EQ(to_doubles(own[0]->dense()->value), values);
  EXPECT_NE(own[0]->dense()->value.data, shared->dense()->value.data);

  tape.restart({});
  EXPECT_EQ(to_doubles(model->losses(tape, batch)), losses) << "cutting a tie changes nothing yet";
  cpu_kernels().fill(own[0]->dense()->value, 0.0);
  tape.restart({});
  EXPECT_NE(to_doubles(model->losses(tape, batch)), losses) << "the softmax does not use its own weight";
  EXPECT_TRUE(model->weights().untie(store, shared).empty()) << "nothing is tied any more";
}

TEST(Weight, ValueHasTheTypeOfActivationsAndTheMastersGradientHome) {
  ParameterStore store;
  WeightSet weights;
  Weight* w = weights.add(store, "w.weight", groups::kFfn, WeightKind::linear, {2, 2}, init::ones());
  store.allocate(DType::f32);
  store.initialize(1);
  Arena arena;
  Tape tape(cpu_kernels(), arena, DType::bf16, {.recording = true});
  const Var value = w->value(tape), table = w->table(tape);
  EXPECT_EQ(value.value.dtype, DType::bf16);
  EXPECT_EQ(to_doubles(value.value), std::vector<double>(4, 1.0));
  EXPECT_EQ(value.slot, &w->dense()->slot);
  EXPECT_EQ(w->value(tape).value.data, value.value.data) << "cast once per pass";
  EXPECT_EQ(table.value.data, w->dense()->value.data) << "rows are looked up in the master";
  EXPECT_EQ(table.slot, value.slot);
  Tape single(cpu_kernels(), arena, DType::f32, {});
  EXPECT_EQ(w->value(single).value.data, w->dense()->value.data) << "no copy where none is needed";
}

TEST(Weight, OneValuePerPass) {
  ParameterStore store;
  WeightSet weights;
  Weight* w = weights.add(store, "w.weight", groups::kFfn, WeightKind::linear, {2, 2}, {});
  store.allocate(DType::f32);
  class Counting : public Representation {
   public:
    explicit Counting(int* calls) : calls_(calls) {}
    Var value(Tape& tape) override {
      ++*calls_;
      return {tape.tensor({2, 2}), nullptr};
    }

   private:
    int* calls_;
  };
  int calls = 0;
  w->set_representation(std::make_unique<Counting>(&calls), w->dense());
  Arena arena;
  Tape tape(cpu_kernels(), arena, DType::f32, {});
  for (int pass = 1; pass <= 3; ++pass) {
    const void* first = w->value(tape).value.data;
    EXPECT_EQ(w->value(tape).value.data, first);
    EXPECT_EQ(calls, pass);
    tape.restart({});
  }
}

// --- bands ---

std::string band_error(std::vector<int64_t> cutoffs, int64_t vocabulary, int64_t dim, double factor) {
  try {
    const Bands bands(std::move(cutoffs), vocabulary, dim, factor);
    return "none";
  } catch (const Error& error) {
    return error.what();
  }
}

TEST(Bands, CutTheVocabulary) {
  const Bands bands({20, 60}, 100, 64, 4.0);
  ASSERT_EQ(bands.count(), 3);
  EXPECT_EQ(bands.first(1), 20);
  EXPECT_EQ(bands.size(0), 20);
  EXPECT_EQ(bands.size(2), 40);
  EXPECT_EQ(bands.dim(0), 64);
  EXPECT_EQ(bands.dim(2), 4);
  EXPECT_EQ(Bands({20, 100}, 100, 64, 4.0).count(), 2) << "the vocabulary may be named as the last cutoff";
  const std::vector<int32_t> ids{5, 20, -1, 99, 59, 60, 19};
  const Bands::Split split = bands.split(ids, 1);
  EXPECT_THAT(split.rows, ElementsAre(ElementsAre(0, 6), ElementsAre(1, 4), ElementsAre(3, 5)));
  EXPECT_THAT(split.ids, ElementsAre(ElementsAre(5, 19), ElementsAre(0, 39), ElementsAre(39, 0)));
  const std::vector<int32_t> of_two_bands{5, 20, 6, 7};
  const Bands::Split filled = bands.split(of_two_bands, 3);
  EXPECT_THAT(filled.rows, ElementsAre(ElementsAre(0, 2, 3), ElementsAre(1, -1, -1), ElementsAre()));
  EXPECT_THAT(filled.ids, ElementsAre(ElementsAre(5, 6, 7), ElementsAre(0, -1, -1), ElementsAre()));
}

TEST(Bands, ImpossibleCutoffsAreErrors) {
  EXPECT_THAT(band_error({20, 200}, 100, 64, 4.0), HasSubstr("cutoff 200 exceeds the vocabulary of 100 words"));
  EXPECT_THAT(band_error({60, 20}, 100, 64, 4.0), HasSubstr("must ascend, got [60, 20"));
  EXPECT_THAT(band_error({20, 20}, 100, 64, 4.0), HasSubstr("must ascend"));
  EXPECT_THAT(band_error({0, 20}, 100, 64, 4.0), HasSubstr("must ascend"));
  EXPECT_THAT(band_error({20, 60}, 100, 8, 4.0), HasSubstr("band 2 has no dimension left"));
}

}  // namespace
}  // namespace qn::test
