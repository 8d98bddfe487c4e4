// What processes have to do with each other: dependencies, groups, and how many
// may be starting at once.
//
// Keys, rules, and the order that follows from them. That a process belongs to
// others is known here only; what happens to whom is the actors' affair.
#pragma once

#include "pup/config/reader.hpp"
#include "pup/config/rules.hpp"
#include "pup/config/spec.hpp"

#include <array>
#include <string>
#include <string_view>
#include <vector>

namespace pup {

inline constexpr std::array<std::string_view, 2> relation_top_keys{
    "groups", "startConcurrency"};
inline constexpr std::array<std::string_view, 3> relation_process_keys{
    "dependsOn", "supervisor", "significant"};

void read_top_relations(reader& in, const fields& parts, pup_spec& into);
void read_relations(reader& in, const fields& parts, process_spec& into);

/// Appends what is wrong: ids and groups that do not exist, processes that wait
/// for each other or for what cannot come.
void relation_rules(const pup_spec& spec, std::vector<broken_rule>& into);

/// Indexes into spec.processes in the order of starting: the file's, but what
/// others depend on before them. Stopping is its reverse. A circle, which a
/// valid spec has none of, is cut somewhere.
std::vector<std::size_t> order_of_start(const pup_spec& spec);

/// Ids of all that `id` depends on, directly or not, in start order.
std::vector<std::string> dependencies_of(const pup_spec& spec,
                                         const std::string& id);

/// Ids of those that depend on `id` directly, in start order.
std::vector<std::string> dependents_of(const pup_spec& spec,
                                       const std::string& id);

}  // namespace pup
