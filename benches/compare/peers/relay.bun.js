// The plain relay (docs/benchmarking.md) on Bun, whose WebSockets and topics are uWebSockets': `bun relay.bun.js PORT`.
// `server.publish` reaches the publisher too if it subscribes, as the broker does; `ws.publish` would leave it out.

const PUBLISH = '{"type":"publish","topic":"';
const SUBSCRIBE = '{"type":"subscribe","topic":"';

const server = Bun.serve({
  hostname: "127.0.0.1",
  port: Number(process.argv[2]),
  fetch(request, server) {
    return server.upgrade(request) ? undefined : new Response("upgrade", { status: 426 });
  },
  websocket: {
    // Nothing that costs and that the others do not do.
    perMessageDeflate: false,
    idleTimeout: 0,
    sendPings: false,
    backpressureLimit: 64 << 20,
    message(ws, text) {
      if (text.startsWith(PUBLISH)) {
        server.publish(text.slice(PUBLISH.length, text.indexOf('"', PUBLISH.length)), text);
      } else if (text.startsWith(SUBSCRIBE)) {
        ws.subscribe(text.slice(SUBSCRIBE.length, text.indexOf('"', SUBSCRIBE.length)));
      }
    },
  },
});
console.log(`listening on 127.0.0.1:${server.port}`);
