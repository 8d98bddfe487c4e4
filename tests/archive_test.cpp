// What one guardian writes down for the next.
#include "pup/runtime/archive.hpp"

#include "pup/runtime/membership.hpp"
#include "pup/runtime/wards.hpp"

#include "catch.hpp"

#include <memory>

namespace {

using namespace pup;

struct part {
  std::string name;
  std::optional<int> number;

  bool operator==(const part&) const = default;

  template <class Archive>
  friend void transfer(Archive& a, part& x) {
    a(x.name, x.number);
  }
};

struct whole {
  std::uint64_t number = 0;
  bool flag = false;
  std::vector<part> parts;
  std::map<std::string, part> by_name;
  std::unordered_map<int, std::vector<int>> by_number;
  std::set<std::uint64_t> set;
  std::chrono::steady_clock::time_point when{};

  bool operator==(const whole&) const = default;

  template <class Archive>
  friend void transfer(Archive& a, whole& x) {
    a(x.number, x.flag, x.parts, x.by_name, x.by_number, x.set, x.when);
  }
};

template <class T>
std::string bytes_of(T& x) {
  archive_writer to;
  to(x);
  return to.bytes();
}

whole example() {
  whole result;
  result.number = 1ULL << 63;
  result.flag = true;
  result.parts = {{"a", 1}, {"", std::nullopt}};
  result.by_name["b"] = {std::string(1000, 'x'), -7};
  result.by_number[5] = {1, 2, 3};
  result.set = {3, 4};
  result.when += std::chrono::seconds{42};
  return result;
}

}  // namespace

TEST_CASE("what is written is read again") {
  auto x = example();
  const auto bytes = bytes_of(x);
  whole y;
  archive_reader from{bytes};
  from(y);
  CHECK(from.good());
  CHECK(x == y);
}

TEST_CASE(
    "what was cut, changed or is too much is not good, and reads as little") {
  auto x = example();
  const auto bytes = bytes_of(x);
  for (std::size_t size = 0; size < bytes.size(); ++size) {
    whole y;
    // Of its own size, so that a look beyond it is seen.
    const auto cut = std::make_unique<std::string>(bytes, 0, size);
    archive_reader from{*cut};
    from(y);
    CHECK_FALSE(from.good());
  }
  whole y;
  const auto more = bytes + 'x';
  archive_reader from{more};
  from(y);
  CHECK_FALSE(from.good());
  for (std::size_t i = 0; i < bytes.size(); ++i) {
    auto other = bytes;
    other[i] = static_cast<char>(~other[i]);
    whole z;
    archive_reader changed{other};
    changed(z);
    if (changed.good())
      CHECK(bytes_of(z).size() <= other.size());
  }
}

TEST_CASE("lives of a guardian are read as they were written") {
  wards empty;
  const auto bytes = bytes_of(empty);
  wards other;
  archive_reader from{bytes};
  from(other);
  CHECK(from.good());
  CHECK(bytes_of(other) == bytes);

  ward x;
  x.number = 7;
  x.key = "web-1";
  x.pid = 4711;
  x.now = ward::phase::remains;
  x.killed = {{4712, 99}};
  x.rest.left_example = "pid 4712 (sleep)";
  x.end.how.code = 3;
  const auto one = bytes_of(x);
  ward y;
  archive_reader of_one{one};
  of_one(y);
  CHECK(of_one.good());
  CHECK(y.key == x.key);
  CHECK(y.now == x.now);
  CHECK(y.killed == x.killed);
  CHECK(y.rest.left_example == x.rest.left_example);
  CHECK(y.end.how.code == 3);
}
