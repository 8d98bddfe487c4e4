// Patterns of paths.
#include "pup/config/glob.hpp"

#include "catch.hpp"

#include <random>

using namespace pup;

namespace {

path_glob glob(const std::string& pattern) {
  auto parsed = path_glob::parse(pattern);
  INFO(pattern);
  REQUIRE(std::holds_alternative<path_glob>(parsed));
  return std::get<path_glob>(parsed);
}

bool matches(const std::string& pattern, const std::string& path) {
  return glob(pattern).matches(path);
}

std::string fault(const std::string& pattern) {
  const auto parsed = path_glob::parse(pattern);
  const auto* text = std::get_if<std::string>(&parsed);
  return text != nullptr ? *text : "";
}

}  // namespace

TEST_CASE("names") {
  CHECK(matches("server.ts", "server.ts"));
  CHECK_FALSE(matches("server.ts", "server.tsx"));
  CHECK(matches("*.ts", "server.ts"));
  CHECK(matches("*.ts", ".ts"));
  CHECK(matches("s*r*.ts", "server.ts"));
  CHECK(matches("a*b*c", "aXbXbXc"));
  CHECK_FALSE(matches("a*b*c", "aXbXbX"));
  CHECK(matches("serv?r.ts", "server.ts"));
  CHECK_FALSE(matches("serv?r", "servr"));
  CHECK(matches("*", "anything"));
}

TEST_CASE("classes and escapes") {
  CHECK(matches("[a-c]1", "b1"));
  CHECK_FALSE(matches("[a-c]1", "d1"));
  CHECK(matches("[!a-c]1", "d1"));
  CHECK(matches("[]]", "]"));
  CHECK(matches("[!]]", "x"));
  CHECK(matches("[a-]", "-"));
  CHECK(matches("[\xC3-\xC4]x", "\xC3x"));
  CHECK(matches("\\*", "*"));
  CHECK_FALSE(matches("\\*", "x"));
  CHECK(matches("\\{a\\}", "{a}"));
}

TEST_CASE("paths") {
  CHECK(matches("src/*.ts", "src/a.ts"));
  CHECK_FALSE(matches("src/*.ts", "src/deep/a.ts"));
  CHECK_FALSE(matches("src/*.ts", "lib/src/a.ts"));
  CHECK(matches("src/**/*.ts", "src/a.ts"));
  CHECK(matches("src/**/*.ts", "src/x/y/a.ts"));
  CHECK(matches("**/*.*", "a.ts"));
  CHECK(matches("**/*.*", "x/a.ts"));
  CHECK_FALSE(matches("**/*.*", "x/README"));
  CHECK(matches("a/**/b/**/c", "a/b/x/b/c"));
  CHECK(matches("src/**", "src/x/y"));
}

TEST_CASE("one without a slash is for names at any depth") {
  CHECK(matches("*.ts", "src/deep/a.ts"));
  CHECK(matches("dist/", "packages/dist"));
  CHECK_FALSE(matches("/a.ts", "src/a.ts"));
  CHECK(matches("./a.ts", "a.ts"));
}

TEST_CASE("braces") {
  CHECK(matches("*.{ts,js}", "a.js"));
  CHECK_FALSE(matches("*.{ts,js}", "a.jsx"));
  CHECK(matches("{src,lib}/{a,b{1,2}}.ts", "lib/b2.ts"));
  CHECK(matches("a{,b}", "a"));
  CHECK(matches("[{]x", "{x"));
}

TEST_CASE("what is below a folder is covered with it") {
  CHECK(glob(".git").covers(".git/index"));
  CHECK(glob(".git").covers("x/.git/objects/00"));
  CHECK(glob("**/.git/**").covers(".git"));
  CHECK(glob("**/.git/**").covers("x/.git/index"));
  CHECK_FALSE(glob(".git").covers(".github/x"));
  CHECK(glob("/tmp/app").covers("/tmp/app/x"));
  CHECK_FALSE(glob("/tmp/app").covers("/tmp/apps"));
}

TEST_CASE("what is no pattern") {
  CHECK(fault("") == "is empty");
  CHECK(fault("/") == "names nothing");
  CHECK(fault("./") == "names nothing");
  CHECK(fault("[a") == "has a [ without its ]");
  CHECK(fault("[]") == "has a [ without its ]");
  CHECK(fault("{a,b") == "has a { without its }");
  CHECK(fault("a\\") == "ends with a backslash");
  CHECK(fault("a\\/b") == "has a slash behind a backslash");
  CHECK(fault("[a/b]") == "has a slash between [ and ]");
  CHECK(fault("../x") == "leads out of the folder");
  CHECK(fault("{a,b}{a,b}{a,b}{a,b}{a,b}{a,b}{a,b}{a,b}{a,b}")
        == "has more than 256 alternatives");
}

TEST_CASE("many stars cost no more than the product of both lengths") {
  std::string pattern;
  for (int i = 0; i < 200; ++i)
    pattern += "*a";
  CHECK_FALSE(matches(pattern + 'b', std::string(4000, 'a')));
}

TEST_CASE("whatever is accepted can be matched, and matches what it covers") {
  std::mt19937 random{7};
  const std::string_view signs = "ab/*?[]{},!^-\\.*";
  const auto text = [&](std::string_view from, std::size_t most) {
    std::string result;
    for (auto n = random() % most + 1; n > 0; --n)
      result += from[random() % from.size()];
    return result;
  };
  std::size_t accepted = 0;
  for (int i = 0; i < 50'000; ++i) {
    const auto pattern = text(signs, 12);
    const auto path = text("ab/.", 10);
    const auto parsed = path_glob::parse(pattern);
    const auto* good = std::get_if<path_glob>(&parsed);
    if (good == nullptr)
      continue;
    ++accepted;
    if (good->matches(path) && !good->covers(path))
      FAIL(pattern + " matches " + path + " and does not cover it");
  }
  CHECK(accepted > 10'000);
}
