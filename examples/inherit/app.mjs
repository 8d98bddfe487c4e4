// A server that inherits its listening socket as descriptor 3: Node.js, and Deno
// through node:http (Deno.serve cannot).
import { createServer } from "node:http";
import process from "node:process";

const server = createServer((request, response) => {
  response.end(process.env.PUP_ID + "\n");
});
server.listen({ fd: 3 });

// Who is served is served to the end; pup sends nobody new by now.
process.on("SIGTERM", () => server.close(() => process.exit(0)));
