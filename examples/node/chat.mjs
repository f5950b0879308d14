// A chat in the terminal: (cd examples/node && npm ci && node chat.mjs --name ada), beside a broker.
//
// What you type goes to the room; what the others write is printed. It meets `cargo run --example bot` and
// examples/browser/index.html in the topic chat.lobby.
//
// PUBSUB_URL names the broker. --say TEXT publishes that once it is subscribed; --once ends after the first
// message of somebody else.

import { createInterface } from 'node:readline';
import { parseArgs } from 'node:util';
import WebSocket from 'ws';

const room = 'chat.lobby';
const { values: options } = parseArgs({
  options: {
    name: { type: 'string', default: 'node' },
    say: { type: 'string' },
    once: { type: 'boolean', default: false },
  },
});

const socket = new WebSocket(process.env.PUBSUB_URL ?? 'ws://127.0.0.1:8000/');
const send = (object) => socket.send(JSON.stringify(object));

// echo: false, since the terminal shows already what was typed.
const say = (text) =>
  send({ type: 'publish', topic: room, message: { name: options.name, text }, echo: false });

socket.on('open', () => send({ type: 'subscribe', topic: room }));

socket.on('message', (data) => {
  const object = JSON.parse(data);
  if (object.type === 'ack' && object.action === 'subscribe') {
    // From here on nothing that is published in the room is missed.
    console.log(`subscribed: ${room}`);
    if (options.say !== undefined) say(options.say);
    const lines = createInterface({ input: process.stdin });
    lines.on('line', say);
    lines.on('close', () => options.once || socket.close());
  } else if (object.type === 'publish') {
    console.log(`received: ${object.message?.name}: ${object.message?.text}`);
    if (options.once) socket.close();
  } else if (object.type === 'gap') {
    console.log(`missed: ${object.count} messages`);
  } else if (object.type === 'error') {
    console.error(`refused: ${object.code}: ${object.reason}`);
    process.exitCode = 1;
  }
});

socket.on('error', (error) => {
  console.error(`no connection: ${error.message}`);
  process.exitCode = 1;
});

socket.on('close', (code) => {
  // 1005: closed by us, without a code.
  if (code !== 1005 && code !== 1006) console.error(`closed: ${code}`);
  process.exit();
});
