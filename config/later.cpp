#include "pup/config/later.hpp"

#include "pup/config/words.hpp"

namespace pup {

void refuse_later_top_keys(reader& in, const fields& x) {
  auto api = x.find("api");
  if (api && in.object(*api, "write an object"))
    in.blame_key(*api, quote("api") + " is not supported yet", "remove it");
}

}  // namespace pup
