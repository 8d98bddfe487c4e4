#include "pup/runtime/drivers_shared.hpp"

#include "pup/runtime/drivers.hpp"
#include "pup/runtime/ports.hpp"

#include <cerrno>

namespace pup {

std::string in_words(const listen_error& x, std::uint16_t port) {
  return x.code == EADDRINUSE ? describe_port_in_use(port) : to_string(x);
}

inherit_options inherit_options_of(const cluster_spec& spec) {
  return {spec.common_host, spec.common_port, spec.strategy};
}

std::string kept_group_name(const std::string& cluster) {
  return "group " + cluster;
}

}  // namespace pup
