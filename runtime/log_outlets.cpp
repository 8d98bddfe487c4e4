#include "pup/runtime/log_outlets.hpp"

#include <sys/epoll.h>

namespace pup {

namespace {

// How long the end waits for a console that takes nothing.
constexpr int console_patience_ms = 500;

}  // namespace

log_outlets::log_outlets(const logger_spec& rules, int out, int err, int epoll,
                         compressor compress)
    : rules_(rules), epoll_(epoll), compress_(std::move(compress)) {
  if (out >= 0)
    consoles_[0].to.emplace(out);
  if (err >= 0)
    consoles_[1].to.emplace(err);
}

// -- files --------------------------------------------------------------------

log_outlets::file* log_outlets::open(const std::string& path,
                                     std::optional<uid_t> user) {
  auto found = files_.find(path);
  if (found == files_.end()) {
    auto full = [this, path](const std::string& old) {
      if (rules_.compress)
        compress_(old, [this, path] {
          if (const auto i = files_.find(path); i != files_.end())
            i->second.to_.prune();
        });
    };
    const log_file_rules rules{rules_.file_bytes, rules_.files_kept};
    found = files_.try_emplace(path, path, rules, std::move(full)).first;
  }
  if (user)
    found->second.to_.allow(*user);
  ++found->second.users_;
  return &found->second;
}

void log_outlets::release(file* x) {
  if (--x->users_ == 0 && !x->unsaid_.any())
    files_.erase(x->to_.path());
}

void log_outlets::reopen() {
  for (auto& [path, x] : files_)
    x.to_.reopen();
}

// -- lines --------------------------------------------------------------------

// Lines as they are, where that is what is wanted.
std::string_view log_outlets::rendered(const std::string& id, log_stream stream,
                                       std::string_view lines, time_point now,
                                       const line_style& style) {
  if (!style.json && !style.decorate)
    return without_escapes(lines, style.text, scratch_);
  const auto us = std::chrono::duration_cast<std::chrono::microseconds>(
      now.time_since_epoch());
  const auto head = line_head(
      {static_cast<std::uint64_t>(us.count()), id, stream, {}}, style);
  scratch_.clear();
  while (!lines.empty()) {
    const auto end = lines.find('\n');
    append_line(scratch_, head, lines.substr(0, end), style);
    lines.remove_prefix(end + 1);
  }
  return scratch_;
}

void log_outlets::write(const choice& to, const std::string& id,
                        log_stream stream, std::string_view lines,
                        time_point now, log_losses* losses) {
  line_style style;
  style.json = to.json;
  if (to.to != nullptr) {
    style.decorate = to.decorate_files;
    const auto text = rendered(id, stream, lines, now, style);
    const auto put = to.to->to_.write(text, now);
    if (put.error != 0) {
      to.to->unsaid_.add(text.substr(put.bytes), put.error, now, losses,
                         to.to->to_.why());
      to.to->last_id_ = id;
      any_loss_ = true;
    }
  }
  auto& screen = consoles_[stream == log_stream::out ? 0 : 1];
  if (!to.console || !screen.to)
    return;
  style.decorate = rules_.decorate;
  style.colour = rules_.colors;
  if (rules_.colors)
    style.text = escapes::keep_colours;
  else if (screen.to->is_terminal())
    style.text = escapes::strip_controls;
  screen.to->write(rendered(id, stream, lines, now, style));
  watch(screen);
}

void log_outlets::say_losses(const listener& say) {
  any_loss_ = false;
  for (auto& [path, x] : files_) {
    if (!x.unsaid_.any())
      continue;
    if (say(x.last_id_, x.unsaid_.text("lines for " + path)))
      x.unsaid_ = {};
    else
      any_loss_ = true;
  }
  std::erase_if(files_, [](const auto& x) {
    return x.second.users_ == 0 && !x.second.unsaid_.any();
  });
}

// -- the console --------------------------------------------------------------

// Watched only while something waits for it: one whose reader has gone would
// report that for ever.
void log_outlets::watch(console& x) {
  if (x.watched == x.to->waiting())
    return;
  x.watched = x.to->waiting();
  epoll_event event{};
  event.events = EPOLLOUT;
  event.data.ptr = &x;
  ::epoll_ctl(epoll_, x.watched ? EPOLL_CTL_ADD : EPOLL_CTL_DEL, x.to->fd(),
              &event);
}

bool log_outlets::on_event(const void* who) {
  for (auto& x : consoles_) {
    if (who != &x)
      continue;
    x.to->flush();
    watch(x);
    return true;
  }
  return false;
}

void log_outlets::finish() {
  for (auto& x : consoles_)
    if (x.to)
      x.to->finish(console_patience_ms);
}

}  // namespace pup
