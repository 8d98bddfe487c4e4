// The application of the manual's configuration. It names no port: Deno listens
// where DENO_SERVE_ADDRESS says, and pup says it to each instance.
const server = Deno.serve(() => {
  const { port } = server.addr as Deno.NetAddr;
  return new Response(`served on port ${port}\n`);
});
