#include "pup/config/expand.hpp"

#include "pup/config/words.hpp"

#include <array>

namespace pup {

namespace {

constexpr std::string_view variable_prefix = "env:";
constexpr std::array<std::string_view, 4> names{"port", "index", "id",
                                                "env:NAME"};

constexpr std::string_view known_placeholders =
    "use %{port}, %{index}, %{id} or %{env:NAME}, or write %%{ for a literal "
    "%{";

enum class piece_kind { literal, escape, placeholder, unclosed };

struct piece {
  piece_kind kind;
  std::string_view text;  // as written
  std::string_view name;  // of a placeholder
};

// The first piece of a text that is not empty.
piece first_piece(std::string_view text) {
  if (text.starts_with("%%{"))
    return {piece_kind::escape, text.substr(0, 3), {}};
  if (text.starts_with("%{")) {
    auto end = text.find('}');
    if (end == std::string_view::npos)
      return {piece_kind::unclosed, text, {}};
    return {piece_kind::placeholder, text.substr(0, end + 1),
            text.substr(2, end - 2)};
  }
  auto end = text.find('%', 1);
  return {piece_kind::literal, text.substr(0, end), {}};
}

template <class F>
void for_each_piece(std::string_view text, F f) {
  while (!text.empty()) {
    auto x = first_piece(text);
    f(x);
    text.remove_prefix(x.text.size());
  }
}

void blame(placeholder_use& result, std::string problem, std::string remedy) {
  if (!result.problem.empty())
    return;
  result.problem = std::move(problem);
  result.remedy = std::move(remedy);
}

void note_name(placeholder_use& result, std::string_view name) {
  if (name == "port") {
    result.port = true;
  } else if (name == "index") {
    result.index = true;
  } else if (name == "id") {
    result.id = true;
  } else if (name.starts_with(variable_prefix)
             && name.size() > variable_prefix.size()) {
    result.variable = true;
  } else if (name != "%") {
    auto near = nearest(name, names);
    blame(result,
          "%{" + quote(name).substr(1, quote(name).size() - 2) + "} is unknown",
          near ? "did you mean %{" + std::string{*near} + "}?"
               : std::string{known_placeholders});
  }
}

}  // namespace

placeholder_use find_placeholders(std::string_view text) {
  placeholder_use result;
  for_each_piece(text, [&result](const piece& x) {
    if (x.kind == piece_kind::unclosed)
      blame(result, quote(x.text) + " has no closing }",
            "add the }, or write %%{ for a literal %{");
    else if (x.kind == piece_kind::placeholder)
      note_name(result, x.name);
  });
  return result;
}

placeholder_use find_placeholders_of_secret(std::string_view text) {
  auto result = find_placeholders(text);
  if (result.problem.empty())
    return result;
  result.problem = "holds an unknown or unclosed %{...}";
  result.remedy = std::string{known_placeholders};
  return result;
}

std::string expand(std::string_view text, std::uint16_t port,
                   std::uint32_t index, std::string_view id) {
  std::string result;
  for_each_piece(text, [&result, port, index, id](const piece& x) {
    if (x.kind == piece_kind::escape)
      result += "%{";
    else if (x.name == "port")
      result += std::to_string(port);
    else if (x.name == "index")
      result += std::to_string(index);
    else if (x.name == "id")
      result += id;
    else if (x.name == "%")
      result += '%';
    else
      result += x.text;
  });
  return result;
}

std::optional<std::string> expand_variables(
    std::string_view text,
    const std::function<std::optional<std::string>(const std::string&)>&
        variable,
    std::size_t most, std::string& missing) {
  std::string result;
  bool complete = true;
  for_each_piece(text, [&](const piece& x) {
    if (!complete)
      return;
    if (!x.name.starts_with(variable_prefix)) {
      result += x.text;
      return;
    }
    std::string name{x.name.substr(variable_prefix.size())};
    auto value = variable(name);
    if (value) {
      result += escape_placeholders(*value);
    } else {
      missing = name;
      complete = false;
    }
    complete = complete && result.size() <= most;
  });
  if (!complete)
    return std::nullopt;
  return result;
}

std::string escape_placeholders(std::string_view text) {
  std::string result;
  for (std::size_t i = 0; i < text.size(); ++i) {
    if (text.substr(i).starts_with("%{"))
      result += '%';
    result += text[i];
  }
  // A % at the end must not join what follows it, nor its own escape.
  std::size_t last = 0;
  while (result.ends_with('%')) {
    result.pop_back();
    ++last;
  }
  for (; last > 0; --last)
    result += "%{%}";
  return result;
}

}  // namespace pup
