#include "pup/runtime/probe.hpp"

#include "pup/runtime/shortage.hpp"

#include <boost/asio/io_context.hpp>
#include <boost/asio/ip/tcp.hpp>
#include <boost/beast/core/error.hpp>
#include <boost/beast/core/flat_static_buffer.hpp>
#include <boost/beast/core/tcp_stream.hpp>
#include <boost/beast/http/empty_body.hpp>
#include <boost/beast/http/parser.hpp>
#include <boost/beast/http/read.hpp>
#include <boost/beast/http/write.hpp>

#include <memory>
#include <utility>

namespace pup {

namespace {

namespace asio = boost::asio;
namespace beast = boost::beast;
namespace http = beast::http;
using boost::system::error_code;

// A header larger than this is no answer to a health check.
constexpr std::uint32_t header_bytes = 16 * 1024;

constexpr unsigned http_1_1 = 11;

/// One probe; kept alive by its handlers.
class attempt : public std::enable_shared_from_this<attempt> {
public:
  attempt(asio::io_context& loop, probe_request request,
          std::function<void(std::string)> done,
          std::function<void()> not_asked)
      : stream_(loop),
        wanted_(std::move(request)),
        done_(std::move(done)),
        not_asked_(std::move(not_asked)) {}

  void start() {
    error_code error;
    const auto address = asio::ip::make_address(wanted_.address, error);
    // One deadline for all steps: the stream's own would start anew with each.
    stream_.expires_after(wanted_.timeout);
    stream_.async_connect(asio::ip::tcp::endpoint{address, wanted_.port},
                          [self = shared_from_this()](const error_code& e) {
                            self->connected(e);
                          });
  }

private:
  void connected(const error_code& error) {
    if (error && not_asked_ && is_shortage(error.value()))
      return not_asked_();
    if (error)
      return finish(in_words("connect", error));
    if (wanted_.type == probe_type::tcp)
      return finish({});
    request_.version(http_1_1);
    request_.method(http::verb::get);
    request_.target(wanted_.path);
    request_.set(http::field::host, "localhost");
    request_.set(http::field::user_agent, "pup");
    request_.set(http::field::connection, "close");
    http::async_write(
        stream_, request_,
        [self = shared_from_this()](const error_code& e, std::size_t) {
          self->asked(e);
        });
  }

  void asked(const error_code& error) {
    if (error)
      return finish(in_words("request", error));
    answer_.header_limit(header_bytes);
    http::async_read_header(
        stream_, buffer_, answer_,
        [self = shared_from_this()](const error_code& e, std::size_t) {
          self->answered(e);
        });
  }

  void answered(const error_code& error) {
    if (error)
      return finish(in_words("answer", error));
    const auto& head = answer_.get();
    const auto status = head.result_int();
    if (status >= 200 && status < 300)
      return finish({});
    auto text = "answered " + std::to_string(status);
    if (!head.reason().empty())
      text.append(" ").append(head.reason());
    finish(std::move(text));
  }

  std::string in_words(const char* step, const error_code& error) const {
    if (error == beast::error::timeout)
      return "no "
             + std::string{step == std::string{"connect"} ? "connection"
                                                          : "answer"}
             + " within " + std::to_string(wanted_.timeout.count()) + " ms";
    return std::string{step} + ": " + error.message();
  }

  void finish(std::string fault) {
    error_code ignored;
    // Reset: a probe leaves no connection in TIME_WAIT.
    stream_.socket().set_option(asio::socket_base::linger{true, 0}, ignored);
    stream_.close();
    done_(std::move(fault));
  }

  beast::tcp_stream stream_;
  probe_request wanted_;
  std::function<void(std::string)> done_;
  std::function<void()> not_asked_;
  http::request<http::empty_body> request_;
  http::response_parser<http::empty_body> answer_;
  beast::flat_static_buffer<header_bytes> buffer_;
};

}  // namespace

void probe(asio::io_context& loop, probe_request request,
           std::function<void(std::string fault)> done,
           std::function<void()> not_asked) {
  std::make_shared<attempt>(loop, std::move(request), std::move(done),
                            std::move(not_asked))
      ->start();
}

}  // namespace pup
