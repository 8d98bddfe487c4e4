// Values as bytes, for another process of the same machine: in its own order of
// bytes, texts and lists after a u32 length. What is written with an
// archive_writer is read with an archive_reader by the same list of members:
//
//   template <class Archive> void transfer(Archive& a, thing& x) {
//     a(x.number, x.name, x.parts);
//   }
#pragma once

#include <chrono>
#include <cstdint>
#include <cstring>
#include <map>
#include <optional>
#include <set>
#include <string>
#include <string_view>
#include <type_traits>
#include <unordered_map>
#include <vector>

namespace pup {

class archive_writer {
public:
  template <class... Ts>
  void operator()(Ts&... xs) {
    (put(xs), ...);
  }

  [[nodiscard]] const std::string& bytes() const noexcept {
    return bytes_;
  }

  void require(bool) {}

private:
  template <class T>
  void put(T& x) {
    if constexpr (std::is_arithmetic_v<T> || std::is_enum_v<T>)
      bytes_.append(reinterpret_cast<const char*>(&x), sizeof(x));
    else
      transfer(*this, x);
  }

  void put(std::string& x) {
    put_size(x.size());
    bytes_ += x;
  }

  template <class Clock, class Duration>
  void put(std::chrono::time_point<Clock, Duration>& x) {
    auto count = x.time_since_epoch().count();
    put(count);
  }

  template <class T>
  void put(std::optional<T>& x) {
    auto there = x.has_value();
    put(there);
    if (x)
      put(*x);
  }

  template <class T>
  void put(std::vector<T>& xs) {
    put_size(xs.size());
    for (auto& x : xs)
      put(x);
  }

  template <class T>
  void put(std::set<T>& xs) {
    std::vector<T> all(xs.begin(), xs.end());
    put(all);
  }

  template <class K, class V>
  void put(std::map<K, V>& xs) {
    put_entries(xs);
  }
  template <class K, class V>
  void put(std::unordered_map<K, V>& xs) {
    put_entries(xs);
  }

  template <class Map>
  void put_entries(Map& xs) {
    put_size(xs.size());
    for (auto& [key, value] : xs) {
      auto copy = key;
      put(copy);
      put(value);
    }
  }

  void put_size(std::size_t size) {
    auto count = static_cast<std::uint32_t>(size);
    put(count);
  }

  std::string bytes_;
};

/// A value that does not fit makes good() false, and all that follows empty.
class archive_reader {
public:
  explicit archive_reader(std::string_view bytes) : rest_(bytes) {}

  template <class... Ts>
  void operator()(Ts&... xs) {
    (get(xs), ...);
  }

  /// Of what was read: false makes it not good.
  void require(bool condition) {
    if (!condition)
      fail();
  }

  /// All of it has been read, and nothing else.
  [[nodiscard]] bool good() const noexcept {
    return good_ && rest_.empty();
  }

private:
  template <class T>
  void get(T& x) {
    if constexpr (std::is_same_v<T, bool>) {
      std::uint8_t byte = 0;
      get(byte);
      good_ &= byte <= 1;
      x = byte == 1;
    } else if constexpr (std::is_arithmetic_v<T> || std::is_enum_v<T>) {
      if (rest_.size() < sizeof(x))
        return fail();
      std::memcpy(&x, rest_.data(), sizeof(x));
      rest_.remove_prefix(sizeof(x));
    } else {
      transfer(*this, x);
    }
  }

  void get(std::string& x) {
    const auto size = get_size();
    x = rest_.substr(0, size);
    rest_.remove_prefix(size);
  }

  template <class Clock, class Duration>
  void get(std::chrono::time_point<Clock, Duration>& x) {
    typename Duration::rep count{};
    get(count);
    x = std::chrono::time_point<Clock, Duration>{Duration{count}};
  }

  template <class T>
  void get(std::optional<T>& x) {
    bool there = false;
    get(there);
    x.reset();
    if (there)
      get(x.emplace());
  }

  template <class T>
  void get(std::vector<T>& xs) {
    const auto size = get_size();
    xs.clear();
    for (std::size_t i = 0; i < size && good_; ++i)
      get(xs.emplace_back());
  }

  template <class T>
  void get(std::set<T>& xs) {
    std::vector<T> all;
    get(all);
    xs = {all.begin(), all.end()};
  }

  template <class K, class V>
  void get(std::map<K, V>& xs) {
    get_entries(xs);
  }
  template <class K, class V>
  void get(std::unordered_map<K, V>& xs) {
    get_entries(xs);
  }

  template <class Map>
  void get_entries(Map& xs) {
    const auto size = get_size();
    xs.clear();
    for (std::size_t i = 0; i < size && good_; ++i) {
      typename Map::key_type key{};
      get(key);
      get(xs[key]);
    }
  }

  // Each element takes a byte at least: no room is made for a lie.
  std::size_t get_size() {
    std::uint32_t count = 0;
    get(count);
    if (count <= rest_.size())
      return count;
    fail();
    return 0;
  }

  void fail() {
    good_ = false;
    rest_ = {};
  }

  std::string_view rest_;
  bool good_ = true;
};

}  // namespace pup
