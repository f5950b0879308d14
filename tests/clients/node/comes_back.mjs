// Clients that live through a restart of the broker: `node comes_back.mjs LISTEN_ADDRESS RESP_ADDRESS`. Each of them
// subscribes once. For every line of standard input they must all be there, again or still, and hear one message; then
// the line is said back.

import assert from 'node:assert/strict'
import readline from 'node:readline'
import WebSocket from 'ws'
import { event, hostAndPort, Inbox, until, within } from './cases.mjs'

const [listen, resp] = process.argv.slice(2)
const target = hostAndPort(resp)
const CHANNEL = 'room'
const RETRY_MS = 20

/** What each client hears, by its name. */
const inboxes = {}

for (const name of ['redis4', 'redis5', 'redis6']) {
  const { createClient } = await import(name)
  const client = createClient({ socket: { ...target, reconnectStrategy: () => RETRY_MS } })
  client.on('error', () => {})
  await within(client.connect(), name)
  const heard = (inboxes[name] = new Inbox())
  await client.subscribe(CHANNEL, (message) => heard.push(message))
}

for (const name of ['ioredis5', 'ioredis6']) {
  const { Redis } = await import(name)
  // It gives a command up after so many attempts to connect.
  const client = new Redis({ ...target, retryStrategy: () => RETRY_MS, maxRetriesPerRequest: null })
  client.on('error', () => {})
  const heard = (inboxes[name] = new Inbox())
  client.on('message', (_, message) => heard.push(message))
  await within(client.subscribe(CHANNEL), name)
}

{
  const { createClient } = await import('redis3')
  const client = createClient({ ...target, retry_strategy: () => RETRY_MS })
  client.on('error', () => {})
  const heard = (inboxes.redis3 = new Inbox())
  client.on('message', (_, message) => heard.push(message))
  client.subscribe(CHANNEL)
  await event(client, 'subscribe')
}

// It is written for browsers.
globalThis.window = { WebSocket }
const { default: ClusterWS } = await import('clusterws-client-js')
for (const name of ['clusterws', 'clusterws?binary=1']) {
  const autoReconnectOptions = { minInterval: 1, maxInterval: 2 * RETRY_MS }
  const client = new ClusterWS({ url: `ws://${listen}/${name}`, autoReconnect: true, autoReconnectOptions })
  client.on('error', () => {})
  const heard = (inboxes[name] = new Inbox())
  await within(new Promise((resolve) => client.on('connect', resolve)), name)
  client.subscribe(CHANNEL).watch((message) => heard.push(message))
}

for await (const line of readline.createInterface({ input: process.stdin })) {
  const { createClient } = await import('redis6')
  const publisher = createClient({ socket: { ...target, reconnectStrategy: () => RETRY_MS } })
  publisher.on('error', () => {})
  await within(publisher.connect(), 'the publisher')
  const all = Object.keys(inboxes).length
  await until(() => publisher.publish(CHANNEL, 'who is there?'), (count) => count === all, `${all} subscribers`)
  assert.equal(await publisher.publish(CHANNEL, line), all)
  for (const [name, heard] of Object.entries(inboxes)) {
    let message
    do message = await heard.next()
    while (message === 'who is there?')
    assert.equal(message, line, name)
  }
  publisher.destroy()
  console.log(line)
}
process.exit()
