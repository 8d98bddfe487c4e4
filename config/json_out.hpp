// Values -> JSON on one line, for configurations that pup itself writes.
#pragma once

#include <map>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

namespace pup {

/// Keys and their values as JSON, in order.
using json_members = std::vector<std::pair<std::string, std::string>>;

/// Bytes that are not UTF-8 stay, so that the configuration is refused.
std::string json_of(std::string_view text);
std::string json_of(const std::vector<std::string>& texts);
std::string json_of(const std::map<std::string, std::string>& texts);
std::string json_of(const json_members& x);

}  // namespace pup
