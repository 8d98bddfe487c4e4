// Telling the service manager that started us how we are: sd_notify(3), spoken
// without a library. Taking the sockets that it has opened: sd_listen_fds(3).
// And keeping its words from our own children.
#pragma once

#include "pup/runtime/fd.hpp"

#include <string>
#include <string_view>
#include <vector>

namespace pup {

/// Sends `state` ("READY=1", "STATUS=…", "STOPPING=1", lines joined by
/// newlines) to the socket of NOTIFY_SOCKET. Does nothing without one; a
/// manager that does not listen is no reason to fail. Never blocks. Any thread.
void tell_service_manager(const std::string& state);

/// The descriptors that a service manager passes to this process, in its order.
/// A second call finds none. One thread: it changes the environment.
std::vector<unique_fd> take_service_sockets();

/// True for a variable that a service manager meant for us and nobody else: a
/// child that inherits it would speak, listen or be watched in our name.
bool is_service_variable(std::string_view name);

/// `environment` ("NAME=value" each) without these variables.
std::vector<std::string> without_service_variables(
    std::vector<std::string> environment);

}  // namespace pup
