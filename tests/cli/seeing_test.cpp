// Looking at runs from outside: `status` and `report`.
#include <nlohmann/json.hpp>

#include "cli_program.h"

namespace qn::test {
namespace {

TEST_F(CliTest, StatusFollowsARunThroughItsLife) {
  RunConfig config = tiny_config(dir_.path(), "run");
  config.train.max_updates = 1000000;
  config.train.validate_every_updates = 0;
  config.checkpoint.save_every_updates = 1;
  const std::string file = config_file("run", config), folder = (dir_ / "run").string();
  EXPECT_EQ(run({"status", folder}).code, 1);  // there is none yet
  pid_t child = start({"train", "-c", file});
  wait_for("updates |");
  const auto status = [&](int code) {
    // The files of the program that runs are not to be touched.
    const std::string command = fmt::format("{} status {} --json", binary_, folder);
    std::unique_ptr<FILE, int (*)(FILE*)> pipe(popen(command.c_str(), "r"), pclose);
    std::string text;
    for (int c = 0; (c = std::fgetc(pipe.get())) != EOF;) text += static_cast<char>(c);
    const int result = pclose(pipe.release());
    EXPECT_EQ(WEXITSTATUS(result), code) << text;
    return nlohmann::json::parse(text);
  };
  nlohmann::json running = status(0);
  EXPECT_EQ(running["health"], "running");
  EXPECT_EQ(running["status"]["pid"], child);
  EXPECT_EQ(running["status"]["command"], "train");
  EXPECT_EQ(running["status"]["max_updates"], 1000000);
  kill(child, SIGKILL);
  finish(child);
  EXPECT_EQ(status(5)["health"], "killed");

  child = start({"train", "-c", file});
  wait_for("updates |");
  kill(child, SIGTERM);
  EXPECT_EQ(finish(child).code, 3);
  const nlohmann::json stopped = status(3);
  EXPECT_EQ(stopped["health"], "stopped");
  EXPECT_GT(stopped["status"]["update"].get<int64_t>(), 0);
  EXPECT_EQ(stopped["status"]["saved_update"], stopped["status"]["update"]);

  const std::string end = std::to_string(stopped["status"]["update"].get<int64_t>() + 2);
  EXPECT_EQ(run({"train", "-c", file, "--set", "train.max_updates=" + end}).code, 0);
  EXPECT_EQ(status(0)["health"], "finished");
  const Result text = run({"status", folder});
  EXPECT_NE(text.out.find("finished"), std::string::npos) << text.out;
  EXPECT_NE(text.out.find(" of "), std::string::npos) << text.out;

  const Result failed = run({"train", "-c", file, "--fresh", "--set", "schedule.lr=1e30", "--set",
                             "optimizer.clip_norm=0", "--set", "train.max_updates=40"});
  EXPECT_EQ(failed.code, 1) << failed.err;
  const nlohmann::json broken = status(5);
  EXPECT_EQ(broken["health"], "failed");
  EXPECT_NE(broken["text"].get<std::string>().find("diverged"), std::string::npos) << broken;

  EXPECT_EQ(run({"status", (dir_ / "data").string()}).code, 1);
  EXPECT_EQ(run({"status"}).code, 2);
}

TEST_F(CliTest, RanksWarnOnceAndAreNamedWhenTheyDiffer) {
  RunConfig config = tiny_config(dir_.path(), "ranks");
  config.train.max_updates = 2;
  const std::string file = config_file("ranks", config);
  const Result warned =
      finish(start_ranks(2, {"train", "-c", file, "--set", "quant_noise.pq=0", "--set", "quant_noise.form=exact"}));
  EXPECT_EQ(warned.code, 0) << warned.err;
  const std::string words = "no weight gets noise";
  const size_t first = warned.err.find(words);
  ASSERT_NE(first, std::string::npos) << warned.err;
  EXPECT_EQ(warned.err.find(words, first + 1), std::string::npos) << warned.err;

  // Each rank reads its own copy, as on machines without a common file system.
  const path script = dir_ / "rank.sh";
  std::ofstream(script) << "#!/bin/sh\nexec " << binary_ << " train -c " << file
                        << " --set seed=$((1 + ${OMPI_COMM_WORLD_RANK:-0} / 2))\n";
  std::filesystem::permissions(script, std::filesystem::perms::owner_all);
  const Result differ = finish(start_command({QN_SOURCE_DIR "/launch/run", "-n", "3", script.string()}));
  EXPECT_EQ(differ.code, 2) << differ.err;
  EXPECT_NE(differ.err.find("the ranks have different configurations"), std::string::npos) << differ.err;
  EXPECT_NE(differ.err.find("rank 2 on "), std::string::npos) << differ.err;
  EXPECT_NE(differ.err.find("seed: 1 -> 2"), std::string::npos) << differ.err;
}

TEST_F(CliTest, ReportOfATrainingAndItsQuantization) {
  const std::string checkpoint = dense();
  const std::string config = config_file("ipq", tiny_ipq_config(dir_.path(), "ipq", checkpoint));
  ASSERT_EQ(run({"quantize", "-c", config, "--set", "train.tensorboard=true"}).code, 0);
  const std::string page = (dir_ / "page.html").string();
  const Result made = run({"report", (dir_ / "dense").string(), (dir_ / "ipq").string(), "--out", page});
  ASSERT_EQ(made.code, 0) << made.err;
  const std::string html = text_of(page);
  for (const char* words : {"Perplexity", "k-means of stage 3", "Bytes by group", "finished", "model.safetensors",
                            "checkpoint.init_from", "began; 1 rank on "})
    EXPECT_NE(html.find(words), std::string::npos) << words;
  const std::string bytes = std::to_string(std::filesystem::file_size(dir_ / "ipq" / "model.safetensors"));
  EXPECT_NE(html.find(bytes.substr(bytes.size() - 3)), std::string::npos);
  EXPECT_EQ(run({"report", (dir_ / "dense").string(), "-o", page}).code, 0);  // over the older one
  EXPECT_EQ(run({"report", (dir_ / "dense").string(), "-o", config}).code, 2);
  EXPECT_EQ(run({"report", (dir_ / "data").string(), "-o", page}).code, 1);
  size_t events = 0;
  for (const auto& entry : std::filesystem::directory_iterator(dir_ / "ipq"))
    events += entry.path().filename().string().starts_with("events.out.tfevents.");
  EXPECT_EQ(events, 1U);
}

}  // namespace
}  // namespace qn::test
