// pup as a service of systemd: the units' text, and putting them in place.
#pragma once

#include "pup/runtime/config_file.hpp"

#include <chrono>
#include <optional>
#include <string>
#include <vector>

namespace pup {

/// What a unit says.
struct service {
  std::string name;     ///< of the supervisor
  std::string program;  ///< absolute path of pup
  std::string config;   ///< absolute, links as they are written
  std::string path;     ///< PATH of the service
  bool system = false;  ///< of the machine; else of this user
  std::string user;     ///< who runs a unit of the machine; empty: root
  /// How long stopping everything may take.
  std::chrono::seconds stop_timeout{90};
  /// What systemd is to listen on for it, as ListenStream= takes it; empty:
  /// nothing.
  std::vector<std::string> sockets;
};

/// "pup.service" for the supervisor "pup", else "pup-NAME.service"; a name that
/// would make a template ("a@") is escaped as systemd-escape does.
std::string unit_name(const std::string& supervisor);

/// Why there is no unit of this name; empty: there may be one. One line, with
/// the remedy.
std::optional<std::string> unit_name_fault(const std::string& supervisor);

/// The same for the whole: systemd has no way to write it down. Without this
/// fault no text of `x` becomes another setting.
std::optional<std::string> unit_fault(const service& x);

/// "pup.socket", accordingly.
std::string socket_unit_name(const std::string& supervisor);

/// The unit, of what has no unit_fault(). systemd's own rules for quotes, % and
/// $ are obeyed.
std::string unit_text(const service& x);
std::string socket_unit_text(const service& x);

/// Whether that is the text of a unit that runs this file under this name.
bool is_unit_of(const std::string& text, const std::string& supervisor,
                const config_file& file);

/// Where it belongs: /etc/systemd/system, or systemd/user in the user's
/// configuration folder (XDG_CONFIG_HOME, else ~/.config).
std::string unit_folder(bool system);

/// Writes the units, enables and starts them; undoes all when a step fails.
/// Empty: done. Else the reason, one line with the remedy.
std::optional<std::string> install_service(const service& x);

/// Stops, disables and removes them. As above.
std::optional<std::string> remove_service(const std::string& supervisor,
                                          bool system);

}  // namespace pup
