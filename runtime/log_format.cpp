#include "pup/runtime/log_format.hpp"

#include <algorithm>

namespace pup {

namespace {

constexpr std::string_view magic = "\xF5PUP";

void put(std::string& to, std::uint64_t value, int bytes) {
  for (int i = 0; i < bytes; ++i)
    to += static_cast<char>((value >> (8 * i)) & 0xFF);
}

std::uint64_t get(std::string_view from, std::size_t at, std::size_t bytes) {
  std::uint64_t result = 0;
  for (std::size_t i = bytes; i > 0; --i)
    result = result << 8 | static_cast<unsigned char>(from[at + i - 1]);
  return result;
}

// FNV-1a, 32 bits: tells a header from chance, not from malice.
std::uint32_t hash(std::uint32_t so_far, std::string_view bytes) {
  for (const char c : bytes)
    so_far = (so_far ^ static_cast<unsigned char>(c)) * 16'777'619U;
  return so_far;
}

std::uint32_t check_of(std::string_view head, std::string_view id) {
  return hash(hash(2'166'136'261U, head.substr(4, 15)), id);
}

}  // namespace

std::string_view stream_name(log_stream x) {
  switch (x) {
    case log_stream::out:
      return "stdout";
    case log_stream::err:
      return "stderr";
    default:
      return "pup";
  }
}

std::string_view severity_of(log_stream x) {
  switch (x) {
    case log_stream::out:
    case log_stream::info:
      return "info";
    case log_stream::warn:
      return "warn";
    default:
      return "error";
  }
}

std::string encode(const record_header& x) {
  std::string result{magic};
  put(result, x.size, 4);
  put(result, x.time_us, 8);
  result += static_cast<char>(x.stream);
  result += static_cast<char>(x.flags);
  result += static_cast<char>(x.id.size());
  result += x.complete ? '\1' : '\0';
  put(result, check_of(result, x.id), 4);
  return result.append(x.id);
}

parsed_record parse_record(std::string_view bytes) {
  parsed_record result;
  const auto known = std::min(bytes.size(), magic.size());
  if (bytes.substr(0, known) != magic.substr(0, known))
    return result;
  if (bytes.size() < record_head_bytes) {
    result.outcome = parse_outcome::short_of_bytes;
    return result;
  }
  auto& x = result.header;
  x.size = static_cast<std::uint32_t>(get(bytes, 4, 4));
  x.time_us = get(bytes, 8, 8);
  const auto stream = static_cast<unsigned char>(bytes[16]);
  x.flags = static_cast<std::uint8_t>(bytes[17]);
  const auto id_bytes = static_cast<unsigned char>(bytes[18]);
  x.complete = bytes[record_state_offset] != 0;
  if (stream < static_cast<int>(log_stream::out)
      || stream > static_cast<int>(log_stream::error) || id_bytes == 0)
    return result;
  x.stream = static_cast<log_stream>(stream);
  result.bytes = record_head_bytes + id_bytes;
  if (bytes.size() < result.bytes) {
    result.outcome = parse_outcome::short_of_bytes;
    return result;
  }
  x.id = bytes.substr(record_head_bytes, id_bytes);
  if (get(bytes, 20, 4) == check_of(bytes, x.id))
    result.outcome = parse_outcome::ok;
  return result;
}

// -- reading ------------------------------------------------------------------

std::size_t log_reader::feed(std::string_view bytes, bool live) {
  std::size_t done = 0;
  while (done < bytes.size()) {
    const auto rest = bytes.substr(done);
    if (left_ > 0) {
      const auto data = rest.substr(0, left_);
      take(data);
      left_ -= data.size();
      done += data.size();
      continue;
    }
    const auto found = parse_record(rest);
    if (found.outcome == parse_outcome::short_of_bytes)
      break;
    if (found.outcome == parse_outcome::bad) {
      done += skip_damage(rest);
      continue;
    }
    if (live && !found.header.complete)
      break;
    begin(found.header);
    done += found.bytes;
  }
  return done;
}

std::size_t log_reader::skip_damage(std::string_view bytes) {
  const auto next = bytes.find(magic.front(), 1);
  const auto skipped = std::min(next, bytes.size());
  damaged_ += skipped;
  return skipped;
}

void log_reader::next_segment() {
  left_ = 0;
}

void log_reader::begin(const record_header& x) {
  id_ = x.id;
  now_ = x;
  now_.id = id_;
  left_ = x.size;
  const auto open = open_.find({id_, x.stream});
  if ((x.flags & record_flags::carried) != 0 && open == open_.end()) {
    if (open_.size() < most_kept_streams)
      open_[{id_, x.stream}].headless = true;
  } else if ((x.flags & (record_flags::fresh | record_flags::last)) != 0
             && open != open_.end()) {
    close_line(open);
  }
}

void log_reader::take(std::string_view data) {
  auto open = open_.find({id_, now_.stream});
  if (open != open_.end()) {
    const auto end = data.find('\n');
    if (end == std::string_view::npos)
      return keep(data);
    keep(data.substr(0, end));
    open = open_.find({id_, now_.stream});
    if (open != open_.end())  // else there was too much of it to keep
      close_line(open);
    data.remove_prefix(end + 1);
  }
  for (auto end = data.find('\n'); end != std::string_view::npos;
       end = data.find('\n')) {
    auto text = data.substr(0, end);
    data.remove_prefix(end + 1);
    do {
      emit(text.substr(0, log_line_bytes));
      text.remove_prefix(std::min(text.size(), log_line_bytes));
    } while (!text.empty());
  }
  if (!data.empty())
    keep(data);
}

// Appends to the line that has not ended.
void log_reader::keep(std::string_view text) {
  const auto key = stream_key{id_, now_.stream};
  const auto open = open_.try_emplace(key).first;
  if (open->second.headless)
    return;
  auto& line = open->second;
  while (line.text.size() + text.size() >= log_line_bytes) {
    const auto part = text.substr(0, log_line_bytes - line.text.size());
    line.text.append(part);
    kept_ += part.size();
    text.remove_prefix(part.size());
    emit(line.text);
    line.cut = true;
    kept_ -= line.text.size();
    line.text.clear();
  }
  line.text.append(text);
  kept_ += text.size();
  // Lines of a store that pup wrote stay far below; others' bytes may not.
  if (kept_ > most_kept_bytes || open_.size() > most_kept_streams)
    finish();
}

void log_reader::emit(std::string_view text) {
  to_({now_.time_us, id_, now_.stream, text});
}

void log_reader::close_line(std::map<stream_key, open_line>::iterator x) {
  const auto& line = x->second;
  if (!line.headless && !(line.cut && line.text.empty()))
    to_({now_.time_us, x->first.first, x->first.second, line.text});
  kept_ -= line.text.size();
  open_.erase(x);
}

void log_reader::finish() {
  while (!open_.empty())
    close_line(open_.begin());
}

}  // namespace pup
