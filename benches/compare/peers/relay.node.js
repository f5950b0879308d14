// The plain relay (docs/benchmarking.md) on Node.js and `ws`, as its users write one: `node relay.node.js PORT`.

import { WebSocketServer } from "ws";

const PUBLISH = '{"type":"publish","topic":"';
const SUBSCRIBE = '{"type":"subscribe","topic":"';

/** Topic -> its subscribers. */
const topics = new Map();
const port = Number(process.argv[2]);
const server = new WebSocketServer({ host: "127.0.0.1", port, perMessageDeflate: false, backlog: 1024 });

server.on("connection", (client) => {
  const own = new Set();
  client.on("message", (data) => {
    const text = data.toString();
    if (text.startsWith(PUBLISH)) {
      const topic = text.slice(PUBLISH.length, text.indexOf('"', PUBLISH.length));
      for (const subscriber of topics.get(topic) ?? []) subscriber.send(data, { binary: false });
    } else if (text.startsWith(SUBSCRIBE)) {
      const topic = text.slice(SUBSCRIBE.length, text.indexOf('"', SUBSCRIBE.length));
      if (!topics.has(topic)) topics.set(topic, new Set());
      topics.get(topic).add(client);
      own.add(topic);
    }
  });
  client.on("close", () => {
    for (const topic of own) topics.get(topic).delete(client);
  });
  client.on("error", () => client.terminate());
});
server.on("listening", () => console.log(`listening on 127.0.0.1:${port}`));
