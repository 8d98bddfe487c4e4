#include "pup/config/head.hpp"

#include "pup/config/json_text.hpp"

namespace pup {

config_head head_of(std::string_view text) {
  config_head result;
  const auto parsed = parse_json(text);
  const auto* tree = std::get_if<json_tree>(&parsed);
  if (tree == nullptr) {
    result.has_processes = text.find("\"processes\"") != std::string_view::npos;
    return result;
  }
  const json_value root{*tree, 0};
  if (root.kind() != json_kind::object)
    return result;
  for (const auto& x : root.members())
    if (x.key.string() == "processes")
      result.has_processes = true;
    else if (x.key.string() == "name" && x.value.kind() == json_kind::string)
      result.name = std::string{x.value.string()};
  return result;
}

}  // namespace pup
