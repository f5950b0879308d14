// The dwsps client, and what its users saw of its server, said to our broker: `node dwsps.mjs ws://HOST:PORT/`.
// Prints a line per case; exits 1 if one failed.
//
// The broker is to be started with `--ping-interval-ms` well below a second, or the case of the pings takes long.

import assert from 'node:assert/strict'
import { EventEmitter } from 'node:events'
import WebSocket from 'ws'
import { run, within } from './cases.mjs'

const url = process.argv[2]

/** The original client's behaviour: raw texts in events, handlers by the exact topic, no reconnect. */
class Client extends EventEmitter {
  constructor(url) {
    super()
    this.handlers = []
    this.ws = new WebSocket(url)
    this.ws.on('open', () => this.emit('open'))
    this.ws.on('message', (data) => {
      const text = data.toString()
      const message = JSON.parse(text)
      if (message.type === 'ack') {
        this.emit('ack', text)
        return
      }
      for (const { topic, handler } of this.handlers) if (message.topic === topic) handler(message)
      this.emit('message', text)
    })
  }

  subscribe(topic, handler) {
    if (handler) this.handlers.push({ topic, handler })
    this.send({ type: 'subscribe', timestamp: new Date(), topic })
  }

  unsubscribe(topic) {
    this.send({ type: 'unsubscribe', timestamp: new Date(), topic })
  }

  publish(topic, message) {
    this.send({ type: 'publish', timestamp: new Date(), topic, message })
  }

  send(object) {
    this.ws.send(JSON.stringify(object))
  }

  close() {
    this.ws.close()
  }
}

/** A client that is open, with everything that it received in one list that can be waited on. */
async function connect() {
  const client = new Client(url)
  const received = []
  let wake = () => {}
  const take = (text) => {
    received.push(text)
    wake()
  }
  client.on('ack', take)
  client.on('message', take)
  client.closed = new Promise((resolve) => client.ws.on('close', (code) => resolve(code)))
  /** The next text, whatever it is. */
  client.next = async () => {
    while (received.length === 0) {
      await within(new Promise((resolve) => (wake = resolve)), 'a text')
    }
    return received.shift()
  }
  client.nextJson = async () => JSON.parse(await client.next())
  /** Reads up to the ack of this action; gives the deliveries (and errors) before it. */
  client.until = async (action, topic) => {
    const before = []
    for (;;) {
      const message = await client.nextJson()
      if (message.type === 'ack' && message.action === action && message.topic === topic) return before
      before.push(message)
    }
  }
  await within(new Promise((resolve) => client.on('open', resolve)), 'open')
  open.push(client)
  return client
}

const contexts = (messages) => messages.map((message) => message.context)
const ISO = /^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z$/

/** Publishes from another connection and gives what this one gets of it. */
async function heard(client, publisher, topic, message) {
  publisher.publish(topic, message)
  await publisher.until('publish', topic)
  client.unsubscribe('barrier')
  return client.until('unsubscribe', 'barrier')
}

const cases = {
  // The package's own suite.
  async 'subscribe, publish and unsubscribe are acked in order, keys included'() {
    const client = await connect()
    client.subscribe('news')
    client.publish('other', 'hello')
    client.unsubscribe('news')
    for (const [action, topic] of [['subscribe', 'news'], ['publish', 'other'], ['unsubscribe', 'news']]) {
      const text = await client.next()
      const ack = JSON.parse(text)
      assert.match(ack.timestamp, ISO)
      assert.equal(text, `{"type":"ack","action":"${action}","timestamp":"${ack.timestamp}","topic":"${topic}"}`)
    }
  },

  async 'a delivery is the publication with its context, and comes before the ack'() {
    const client = await connect()
    client.subscribe('news.uk')
    await client.until('subscribe', 'news.uk')
    client.ws.send('{"type":"publish","timestamp":"2018-02-16T00:31:37.123Z","topic":"news.uk.london","message":{"a":1}}')
    assert.equal(
      await client.next(),
      '{"type":"publish","timestamp":"2018-02-16T00:31:37.123Z","topic":"news.uk.london","message":{"a":1},"context":"news.uk"}'
    )
    assert.equal((await client.nextJson()).type, 'ack')
  },

  async 'subscribe, publish and unsubscribe sent back to back deliver the message'() {
    const client = await connect()
    client.subscribe('a')
    client.publish('a', 1)
    client.unsubscribe('a')
    client.publish('a', 2)
    assert.deepEqual(await client.until('subscribe', 'a'), [])
    assert.deepEqual((await client.until('publish', 'a')).map((message) => message.message), [1])
    assert.deepEqual(await client.until('unsubscribe', 'a'), [])
    assert.deepEqual(await client.until('publish', 'a'), [])
  },

  async 'sub-topics carry the context, one copy for each subscription, most specific first'() {
    const [client, publisher] = [await connect(), await connect()]
    for (const topic of ['news', 'news.uk', 'news.uk.london']) client.subscribe(topic)
    await client.until('subscribe', 'news.uk.london')
    assert.deepEqual(contexts(await heard(client, publisher, 'news.uk.london', 1)).filter(Boolean), [
      'news.uk.london',
      'news.uk',
      'news',
    ])
    assert.deepEqual(contexts(await heard(client, publisher, 'news.uk', 1)), ['news.uk', 'news'])
    assert.deepEqual(contexts(await heard(client, publisher, 'news.fr', 1)), ['news'])
    assert.deepEqual(await heard(client, publisher, 'newspaper', 1), [])
  },

  async 'callbacks are called for their topic alone, events for every message'() {
    const [client, publisher] = [await connect(), await connect()]
    const called = []
    const events = []
    client.on('message', (text) => events.push(JSON.parse(text).topic))
    client.subscribe('a', (message) => called.push([message.topic, message.context, message.message]))
    client.subscribe('b')
    await client.until('subscribe', 'b')
    await heard(client, publisher, 'a', { x: 1 })
    await heard(client, publisher, 'a.sub', 2)
    await heard(client, publisher, 'b', 3)
    assert.deepEqual(called, [['a', 'a', { x: 1 }]])
    assert.deepEqual(events, ['a', 'a.sub', 'b'])
  },

  async 'a message may be any JSON, or missing'() {
    const client = await connect()
    client.subscribe('a')
    await client.until('subscribe', 'a')
    for (const message of [null, true, 0, 'text', '', [], {}, { deep: [{ x: 'é😀' }] }, undefined]) {
      client.publish('a', message)
      const [delivery] = await client.until('publish', 'a')
      assert.deepEqual(delivery.message, message)
      assert.deepEqual(Object.keys(delivery).slice(0, 3), ['type', 'timestamp', 'topic'])
      assert.equal(Object.keys(delivery).at(-1), 'context')
    }
  },

  async 'any path, and a compression offer that is not taken'() {
    const ws = new WebSocket(new URL('/some/path?x=1', url))
    await within(new Promise((resolve, reject) => ws.on('open', resolve).on('error', reject)), 'open')
    assert.equal(ws.extensions, '')
    assert.equal(ws.protocol, '')
    ws.close()
  },

  async 'closing without a code is 1005'() {
    const client = await connect()
    client.close()
    assert.equal(await within(client.closed, 'close'), 1005)
  },

  // The bugs of the original server, by their numbers on the sheet, each as its user would want it.
  async 'bug 1: topics may be called like an index or a property of an array'() {
    const [client, publisher] = [await connect(), await connect()]
    for (const topic of ['length', '0', '1', 'map', 'constructor', '__proto__', 'toString', 'hasOwnProperty']) {
      client.subscribe(topic)
      await client.until('subscribe', topic)
      assert.deepEqual(contexts(await heard(client, publisher, topic, 1)), [topic])
    }
  },

  async 'bug 2: two subscribes, one copy, one unsubscribe'() {
    const [client, publisher] = [await connect(), await connect()]
    client.subscribe('a')
    client.subscribe('a')
    assert.equal((await client.nextJson()).type, 'ack')
    assert.equal((await client.nextJson()).type, 'ack', 'a duplicate is acked again')
    assert.equal((await heard(client, publisher, 'a', 1)).length, 1)
    client.unsubscribe('a')
    await client.until('unsubscribe', 'a')
    assert.deepEqual(await heard(client, publisher, 'a', 2), [])
  },

  async 'bug 3: the first subscription can be removed'() {
    const [client, publisher] = [await connect(), await connect()]
    client.subscribe('first')
    client.subscribe('second')
    client.unsubscribe('first')
    await client.until('unsubscribe', 'first')
    assert.deepEqual(await heard(client, publisher, 'first', 1), [])
    assert.equal((await heard(client, publisher, 'second', 1)).length, 1)
  },

  async 'bug 4: unsubscribing from what was never subscribed removes nothing, and is acked'() {
    const [client, publisher] = [await connect(), await connect()]
    client.subscribe('a')
    client.subscribe('b')
    client.unsubscribe('never')
    await client.until('unsubscribe', 'never')
    assert.equal((await heard(client, publisher, 'a', 1)).length, 1)
    assert.equal((await heard(client, publisher, 'b', 1)).length, 1)
  },

  async 'bug 5: who answers pings stays'() {
    const client = await connect()
    let pings = 0
    await within(
      new Promise((resolve, reject) => {
        client.ws.on('ping', () => ++pings === 10 && resolve())
        client.closed.then((code) => reject(new Error(`closed with ${code} after ${pings} pings`)))
      }),
      'ten pings (is --ping-interval-ms short?)'
    )
    client.publish('a', 1)
    await client.until('publish', 'a')
  },

  async 'bugs 6 and 7: what a peer forwards is delivered and acked like any publication'() {
    // Our own links to peers are a later matter; a peer that links to us sees what it saw from the original.
    const [client, peer] = [await connect(), await connect()]
    client.subscribe('a')
    await client.until('subscribe', 'a')
    peer.send({ type: 'publish', timestamp: 'then', topic: 'a', message: 1, fromPeerServer: true })
    assert.deepEqual(await peer.until('publish', 'a'), [])
    assert.deepEqual(await client.nextJson(), {
      type: 'publish', timestamp: 'then', topic: 'a', message: 1, context: 'a',
    })
  },

  async 'bug 8: what makes no sense gets no ack and harms nobody'() {
    const [client, bystander] = [await connect(), await connect()]
    bystander.subscribe('a')
    await bystander.until('subscribe', 'a')
    for (const text of ['not json', '[]', '7', 'null', '{"type":"publish","message":1}', '{"type":"publish"}', '{}']) {
      client.ws.send(text)
      assert.equal((await client.nextJson()).type, 'error', text)
    }
    assert.equal((await heard(bystander, client, 'a', 1)).length, 1)
  },

  async 'an unknown type stays unacknowledged'() {
    const client = await connect()
    client.send({ type: 'dance', topic: 'a' })
    client.publish('a', 1)
    const before = await client.until('publish', 'a')
    assert.ok(before.every((message) => message.type === 'error'))
  },

  async 'bug 10: neither context nor peer flag can be forged'() {
    const [client, publisher] = [await connect(), await connect()]
    client.subscribe('a')
    await client.until('subscribe', 'a')
    publisher.send({ type: 'publish', context: 'forged', topic: 'a.b', message: 1, fromPeerServer: true, timestamp: 't' })
    await publisher.until('publish', 'a.b')
    const text = await client.next()
    assert.equal(text, '{"type":"publish","topic":"a.b","message":1,"timestamp":"t","context":"a"}')
  },

  async 'a first level like an integer comes in its place'() {
    const [client, publisher] = [await connect(), await connect()]
    client.subscribe('5')
    client.subscribe('5.x')
    await client.until('subscribe', '5.x')
    assert.deepEqual(contexts(await heard(client, publisher, '5.x', 1)), ['5.x', '5'])
  },
}

let open = []
await run(cases, () => {
  for (const client of open) client.ws.terminate()
  open = []
})
