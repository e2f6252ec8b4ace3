#include "comm/watchdog.h"

#include <fmt/ranges.h>
#include <signal.h>
#include <spdlog/spdlog.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <future>
#include <random>
#include <sstream>
#include <thread>
#include <utility>

#include "comm/transport_guard.h"
#include "comm/watchdog_judge.h"
#include "comm/watchdog_socket.h"
#include "core/activity.h"
#include "core/error.h"
#include "core/last_words.h"
#include "core/machine.h"
#include "core/profiler.h"

namespace qn {

namespace {

using Kind = WatchMessage::Kind;
using Link = RankStatus::Link;

constexpr double kConnectSeconds = 3.0, kWelcomeSeconds = 10.0, kFarewellSeconds = 2.0, kLastWordsSeconds = 3.0;
constexpr size_t kStrangers = 16;

/// Seconds in which this process was able to run: a job that is suspended as a whole and goes on has not been silent.
class AwakeClock {
 public:
  explicit AwakeClock(double longest_step) : longest_step_(longest_step) {}
  double advance() {
    const auto time = std::chrono::steady_clock::now();
    now_ += std::min(std::chrono::duration<double>(time - last_).count(), longest_step_);
    last_ = time;
    return now_;
  }

 private:
  double longest_step_, now_ = 0.0;
  std::chrono::steady_clock::time_point last_ = std::chrono::steady_clock::now();
};

/// Calls `work` in a thread of its own and goes on after `seconds` at the latest: it may hang (a full pipe, a driver).
void run_at_most(double seconds, std::function<void()> work) {
  auto done = std::make_shared<std::promise<void>>();
  std::future<void> finished = done->get_future();
  std::thread([done, work = std::move(work)] {
    work();
    done->set_value();
  }).detach();
  finished.wait_for(std::chrono::duration<double>(seconds));
}

void print_error(const std::string& text) {
  run_at_most(kLastWordsSeconds, [text] {
    spdlog::error("watchdog: {}", text);
    spdlog::default_logger()->flush();
  });
  run_at_most(kLastWordsSeconds, [text] { say_last_words("ended by the watchdog: " + text); });
}

[[noreturn]] void end_process() {
  run_at_most(kLastWordsSeconds, abort_transports);
  _exit(kWatchdogExit);
}

RankReport own_report() {
  const char* waiting = activity.waiting.load(std::memory_order_relaxed);
  return {.collectives = activity.collectives.load(std::memory_order_relaxed),
          .waits = activity.waits.load(std::memory_order_relaxed),
          .waiting = waiting != nullptr,
          .doing = waiting != nullptr ? waiting : name_of(current_phase.load(std::memory_order_relaxed)),
          .problem = transport_problem()};
}

RankReport report_in(const WatchMessage& message) {
  return {.collectives = message.collectives,
          .waits = message.waits,
          .waiting = message.waiting != 0,
          .doing = message.doing.data(),
          .problem = message.text.data()};
}

/// What all ranks know of the job.
struct Job {
  int rank = 0;
  std::vector<std::string> hosts;  ///< by rank
  std::array<uint64_t, 2> token{};
  double limit = 0.0;
  double interval() const { return std::min(1.0, limit / 4.0); }
};

/// The thread and how it ends; what it does is the subclass's.
class Watcher : public Watchdog {
 public:
  explicit Watcher(Job job)
      : job_(std::move(job)), clock_(2.0 * job_.interval()), wake_(eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC)) {
    QN_CHECK(wake_.get() >= 0, "no file descriptor left for the watchdog: raise `ulimit -n`");
  }
  /// Every rank is connected: conclusions may be drawn.
  void arm() { armed_ = true; }

 protected:
  void start_thread() {
    // Signals are for other threads: in programs that use handlers, for the one that computes.
    sigset_t all, before;
    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &before);
    thread_ = std::thread([this] { watch(); });
    pthread_sigmask(SIG_SETMASK, &before, nullptr);
  }
  /// For the destructors of subclasses.
  void stop_thread() {
    farewell_ = std::uncaught_exceptions() > exceptions_ ? Kind::failed : Kind::finished;
    const uint64_t one = 1;
    stop_ = true;
    // Without it the thread would end all the same, an interval later.
    [[maybe_unused]] const ssize_t written = write(wake_.get(), &one, sizeof(one));
    if (thread_.joinable()) thread_.join();
  }
  virtual void watch() = 0;

  WatchMessage message(Kind kind, const RankReport& report) const {
    WatchMessage m;
    m.token = job_.token;
    m.kind = kind;
    m.rank = job_.rank;
    m.collectives = report.collectives;
    m.waits = report.waits;
    m.waiting = report.waiting ? 1 : 0;
    copy_text(report.doing, m.doing.data(), m.doing.size());
    copy_text(report.problem, m.text.data(), m.text.size());
    return m;
  }
  bool from_this_job(const WatchMessage& m) const { return m.token == job_.token; }
  bool stopped() const { return stop_; }

  Job job_;
  AwakeClock clock_;
  Descriptor wake_;
  std::atomic<bool> armed_{false}, stop_{false};
  std::atomic<Kind> farewell_{Kind::finished};

 private:
  int exceptions_ = std::uncaught_exceptions();
  std::thread thread_;
};

/// Rank 0: listens to all and decides.
class HubWatcher final : public Watcher {
 public:
  HubWatcher(Job job, bool local)
      : Watcher(std::move(job)), listener_(local), ranks_(job_.hosts.size()), sockets_(job_.hosts.size()) {
    for (size_t r = 0; r < ranks_.size(); ++r) ranks_[r].host = job_.hosts[r];
    start_thread();
  }
  ~HubWatcher() override { stop_thread(); }

  /// What the others need: token, port, addresses.
  std::string invitation() const {
    return fmt::format("{} {} {} {}", job_.token[0], job_.token[1], listener_.port(),
                       fmt::join(listener_.addresses(), " "));
  }

 private:
  void watch() override {
    bool was_armed = false;
    double sent = 0.0;
    while (!stopped()) {
      wait_for_news();
      const double now = clock_.advance();
      if (armed_ && !was_armed) {
        for (RankStatus& rank : ranks_) rank.heard = rank.counted = rank.waiting_since = now;
        was_armed = true;
      }
      greet_newcomers();
      for (size_t r = 1; r < sockets_.size(); ++r) listen_to(r, now);
      const RankReport report = own_report();
      note_report(ranks_[0], report, now);
      if (armed_)
        if (const auto verdict = judge(ranks_, now, job_.limit)) end_job(*verdict);
      if (now - sent < job_.interval()) continue;
      sent = now;
      send_to_all(message(Kind::heartbeat, report));
    }
    send_to_all(message(farewell_, own_report()));
    drain_all(kFarewellSeconds);
  }

  void wait_for_news() {
    std::vector<int> descriptors{wake_.get(), listener_.descriptor()};
    for (const WatchSocket& socket : sockets_) descriptors.push_back(socket.descriptor());
    for (const WatchSocket& socket : newcomers_) descriptors.push_back(socket.descriptor());
    wait_readable(descriptors, job_.interval());
  }

  /// A connection belongs to a rank once it has shown the token.
  void greet_newcomers() {
    for (WatchSocket socket = listener_.accept(); socket.open(); socket = listener_.accept())
      newcomers_.push_back(std::move(socket));
    // Whoever connects and says nothing has to make room.
    if (newcomers_.size() > sockets_.size() + kStrangers) newcomers_.erase(newcomers_.begin());
    for (WatchSocket& socket : newcomers_) {
      const auto first = socket.receive();
      if (!first) continue;
      const auto r = static_cast<size_t>(first->rank);
      if (from_this_job(*first) && r > 0 && r < sockets_.size() && !sockets_[r].open()) {
        sockets_[r] = std::move(socket);
        sockets_[r].send(message(Kind::heartbeat, own_report()));
      }
      socket.close();
    }
    std::erase_if(newcomers_, [](const WatchSocket& socket) { return !socket.open(); });
  }

  void listen_to(size_t r, double now) {
    const bool connected = sockets_[r].open();
    while (const auto m = sockets_[r].receive()) {
      if (!from_this_job(*m)) continue;
      note_report(ranks_[r], report_in(*m), now);
      if (m->kind == Kind::finished || m->kind == Kind::failed) {
        note_leaving(ranks_[r], m->kind == Kind::failed ? Link::failed : Link::finished, now);
        sockets_[r].close();
      }
    }
    if (connected && !sockets_[r].open()) note_leaving(ranks_[r], Link::lost, now);
  }

  void send_to_all(const WatchMessage& m) {
    for (WatchSocket& socket : sockets_) socket.send(m);
  }
  /// Until every rank has read the last message; `seconds` for all together.
  void drain_all(double seconds) {
    const auto end = std::chrono::steady_clock::now() + std::chrono::duration<double>(seconds);
    for (WatchSocket& socket : sockets_)
      socket.drain(std::chrono::duration<double>(end - std::chrono::steady_clock::now()).count());
  }

  [[noreturn]] void end_job(const Verdict& verdict) {
    print_error(
        fmt::format("{}. All ranks end with status {}; run the same command again: training resumes from the "
                    "last checkpoint",
                    verdict.text, kWatchdogExit));
    WatchMessage m = message(Kind::verdict, {});
    m.rank = verdict.rank;
    copy_text(verdict.text, m.text.data(), m.text.size());
    send_to_all(m);
    drain_all(kLastWordsSeconds);
    end_process();
  }

  WatchListener listener_;
  std::vector<RankStatus> ranks_;
  std::vector<WatchSocket> sockets_;    // by rank; none for rank 0
  std::vector<WatchSocket> newcomers_;  // have not said who they are
};

/// The other ranks: report to rank 0 and do what it says, or notice that it is gone.
class MemberWatcher final : public Watcher {
 public:
  /// Throws qn::Error when rank 0 cannot be reached.
  MemberWatcher(Job job, const std::string& invitation) : Watcher(std::move(job)) {
    root_.host = job_.hosts[0];
    std::istringstream in(invitation);
    int port = 0;
    in >> job_.token[0] >> job_.token[1] >> port;
    std::string tried;
    for (std::string address; !socket_.open() && in >> address; tried += ' ' + address) try_address(address, port);
    QN_CHECK(socket_.open(), "{} cannot connect to {} at TCP port {} of{}",
             rank_name(job_.rank, job_.hosts[static_cast<size_t>(job_.rank)]), rank_name(0, job_.hosts[0]), port,
             tried);
    start_thread();
  }
  ~MemberWatcher() override { stop_thread(); }

 private:
  /// Rank 0 must answer: another program may listen at that address and port on this machine's own network.
  void try_address(const std::string& address, int port) {
    socket_ = connect_to(address, port, kConnectSeconds);
    socket_.send(message(Kind::heartbeat, own_report()));
    const auto end = std::chrono::steady_clock::now() + std::chrono::duration<double>(kWelcomeSeconds);
    while (socket_.open() && std::chrono::steady_clock::now() < end) {
      wait_readable({socket_.descriptor()}, 0.1);
      if (const auto answer = socket_.receive(); answer && from_this_job(*answer)) return;
    }
    socket_.close();
  }

  void watch() override {
    double sent = 0.0;
    bool was_armed = false;
    while (!stopped() && root_.link != Link::finished) {
      wait_readable({wake_.get(), socket_.descriptor()}, job_.interval());
      const double now = clock_.advance();
      if (armed_ && !was_armed) {
        root_.heard = now;
        was_armed = true;
      }
      listen(now);
      if (armed_)
        if (const auto verdict = judge_presence({&root_, 1}, now, job_.limit)) {
          print_error(verdict->text);
          end_process();
        }
      if (now - sent < job_.interval()) continue;
      sent = now;
      socket_.send(message(Kind::heartbeat, own_report()));
    }
    socket_.send(message(farewell_, own_report()));
    socket_.drain(kFarewellSeconds);
  }

  void listen(double now) {
    const bool connected = socket_.open();
    while (const auto m = socket_.receive()) {
      if (!from_this_job(*m)) continue;
      if (m->kind == Kind::verdict) obey(*m);
      // What rank 0 waits for is for itself to judge, and so are its problems.
      RankReport report = report_in(*m);
      report.problem.clear();
      note_report(root_, std::move(report), now);
      if (m->kind == Kind::finished || m->kind == Kind::failed) {
        note_leaving(root_, m->kind == Kind::failed ? Link::failed : Link::finished, now);
        socket_.close();
      }
    }
    if (connected && !socket_.open()) note_leaving(root_, Link::lost, now);
  }

  [[noreturn]] void obey(const WatchMessage& verdict) {
    const auto r = static_cast<size_t>(verdict.rank);
    if (verdict.rank == job_.rank)
      print_error(verdict.text.data());
    else
      print_error(r < job_.hosts.size() ? fmt::format("ends because of {}", rank_name(verdict.rank, job_.hosts[r]))
                                        : std::string(verdict.text.data()));
    end_process();
  }

  WatchSocket socket_;
  RankStatus root_;
};

Job make_job(Communicator& comm, double seconds) {
  Job job{.rank = comm.rank(), .hosts = comm.all_gather(host_name()), .token = {}, .limit = seconds};
  if (comm.is_root()) {
    std::random_device random;
    for (uint64_t& word : job.token) word = (uint64_t{random()} << 32) | random();
  }
  return job;
}

bool one_machine(Communicator& comm) {
  const std::vector<std::string> machines = comm.all_gather(machine_id());
  return std::all_of(machines.begin(), machines.end(), [&](const std::string& m) { return m == machines[0]; });
}

/// Rank 0's watcher first, because the others connect to it. What went wrong on this rank is in `problem`.
std::unique_ptr<Watcher> make_watcher(Communicator& comm, double seconds, std::string& problem) {
  Job job = make_job(comm, seconds);
  const bool local = one_machine(comm);
  std::unique_ptr<Watcher> watcher;
  std::string invitation;
  const auto attempt = [&](auto make) {
    try {
      make();
    } catch (const Error& error) {
      problem = error.what();
    }
  };
  if (comm.is_root())
    attempt([&] {
      auto hub = std::make_unique<HubWatcher>(job, local);
      invitation = hub->invitation();
      watcher = std::move(hub);
    });
  invitation = comm.broadcast_text(invitation);
  if (!comm.is_root() && !invitation.empty())
    attempt([&] { watcher = std::make_unique<MemberWatcher>(job, invitation); });
  return watcher;
}

}  // namespace

std::unique_ptr<Watchdog> start_watchdog(Communicator& comm, double seconds) {
  if (comm.size() == 1 || seconds <= 0.0) return nullptr;
  std::string problem;
  std::unique_ptr<Watcher> watcher = make_watcher(comm, seconds, problem);
  const std::vector<std::string> problems = comm.all_gather(problem);
  const auto first = std::find_if(problems.begin(), problems.end(), [](const std::string& p) { return !p.empty(); });
  if (first == problems.end()) {
    watcher->arm();
    return watcher;
  }
  if (comm.is_root())
    spdlog::warn(
        "no watchdog in this run ({}): a rank that hangs will keep the others waiting. Allow TCP connections "
        "between the job's machines, or say comm.watchdog_seconds=0",
        *first);
  return nullptr;
}

}  // namespace qn
