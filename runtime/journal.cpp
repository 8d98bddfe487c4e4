#include "pup/runtime/journal.hpp"

#include "pup/runtime/identity.hpp"

#include <algorithm>
#include <utility>

namespace pup {

namespace {

constexpr std::chrono::milliseconds first_retry{100};
constexpr std::chrono::milliseconds last_retry{5'000};

}  // namespace

journal::journal(std::string folder, saved_state begin,
                 trouble_function on_trouble)
    : folder_(std::move(folder)),
      on_trouble_(std::move(on_trouble)),
      state_(std::move(begin)),
      thread_([this] { work(); }) {}

journal::~journal() {
  {
    const std::lock_guard guard{mutex_};
    ending_ = true;
  }
  wake_.notify_one();
  thread_.join();
}

template <class Change>
void journal::note(Change change) {
  {
    const std::lock_guard guard{mutex_};
    change();
    news_ = true;
  }
  wake_.notify_one();
}

void journal::configuration(std::string path, std::uint64_t mark) {
  note([&] { configuration_ = {std::move(path), mark}; });
}

void journal::unit(const std::string& id, saved_unit x) {
  note([&] { units_[id] = std::move(x); });
}

void journal::began(const std::string& key, std::uint64_t life, pid_t pid) {
  const saved_process x{life, pid, start_time_of(pid).value_or(0)};
  note([&] { processes_[key].began = x; });
}

void journal::ended(const std::string& key, std::uint64_t life) {
  note([&] { processes_[key].ended = life; });
}

void journal::ends_on_purpose() {
  note([&] { on_purpose_ = true; });
}

void journal::when_written(std::function<void()> f) {
  {
    const std::lock_guard guard{mutex_};
    if (news_ && trouble_.empty()) {
      waiting_.push_back(std::move(f));
      f = nullptr;
    } else if (writing_) {
      served_.push_back(std::move(f));
      f = nullptr;
    }
  }
  wake_.notify_one();
  if (f)
    f();
}

std::string journal::trouble() const {
  const std::lock_guard guard{mutex_};
  return trouble_;
}

void journal::work() {
  auto retry = first_retry;
  for (;;) {
    const auto good = write();
    std::unique_lock guard{mutex_};
    if (ending_ && (!good || !news_))
      return;
    const auto pause = good ? between_writes : retry;
    retry = good ? first_retry : std::min(retry * 2, last_retry);
    wake_.wait_for(guard, pause,
                   [this] { return ending_ || !waiting_.empty(); });
    if (good)
      wake_.wait(guard, [this] { return ending_ || news_; });
    if (ending_ && good && !news_)
      return;
  }
}

void journal::take_news() {
  decltype(configuration_) configuration;
  decltype(units_) units;
  decltype(processes_) processes;
  {
    const std::lock_guard guard{mutex_};
    configuration.swap(configuration_);
    units.swap(units_);
    processes.swap(processes_);
    state_.on_purpose = on_purpose_;
    news_ = false;
    writing_ = true;
    served_.swap(waiting_);
  }
  if (configuration) {
    state_.config = std::move(configuration->path);
    state_.config_mark = configuration->mark;
  }
  for (auto& [id, x] : units)
    state_.units[id] = std::move(x);
  for (const auto& [key, x] : processes) {
    if (x.began)
      state_.processes[key] = *x.began;
    const auto i = state_.processes.find(key);
    if (i != state_.processes.end() && i->second.life <= x.ended)
      state_.processes.erase(i);
  }
}

bool journal::write() {
  take_news();
  const auto fault = write_state(folder_, state_);
  auto text = fault ? to_string(*fault) : std::string{};
  bool turned = false;
  decltype(served_) served;
  {
    const std::lock_guard guard{mutex_};
    writing_ = false;
    served.swap(served_);
    turned = trouble_.empty() != text.empty();
    trouble_ = text;
  }
  if (turned && on_trouble_)
    on_trouble_(text);
  for (const auto& f : served)
    f();
  return !fault;
}

}  // namespace pup
