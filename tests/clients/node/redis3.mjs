// node-redis 3, whose API is callbacks, with the broker in Redis' place: `node redis3.mjs HOST:PORT`. Prints a line per
// case; exits 1 if one failed.
//
// Everything holds for a real Redis 7 as well.

import assert from 'node:assert/strict'
import redis from 'redis3'
import { event, hostAndPort, Inbox, run, until, within } from './cases.mjs'
import { proxyTo } from './proxy.mjs'

const address = process.argv[2]

/** Connections that are spread over the broker's shards, whichever they are. */
const MANY = 6
/** Every byte there is. */
const BYTES = Buffer.from(Array.from({ length: 256 }, (_, byte) => byte))

let open = []

/** A client that is ready: it has asked for INFO and liked it. */
async function connect(options = {}) {
  const client = redis.createClient({ ...hostAndPort(address), ...options })
  open.push(client)
  client.on('error', () => {})
  await event(client, 'ready')
  return client
}

/** A command as a promise. */
function call(client, command, ...words) {
  const reply = new Promise((resolve, reject) => {
    client[command](...words, (error, value) => (error ? reject(error) : resolve(value)))
  })
  return within(reply, `${command} ${words}`)
}

/** A command that the package has no name for. */
const send = (client, command, ...words) => call(client, 'send_command', command, words)

/** A client that listens to these channels, and what it hears of anything, as `[message, channel]`. */
async function subscriber(...channels) {
  const client = await connect()
  const heard = new Inbox()
  client.on('message', (channel, message) => heard.push([message, channel]))
  client.on('pmessage', (pattern, channel, message) => heard.push([message, channel, pattern]))
  if (channels.length > 0) await call(client, 'subscribe', ...channels)
  return [client, heard]
}

const cases = {
  async 'reads the version and the role in INFO before it is ready'() {
    const client = await connect()
    assert.ok(client.server_info.versions[0] >= 6, JSON.stringify(client.server_info.versions))
    assert.equal(client.server_info.role, 'master')
    assert.equal(client.server_info.loading, '0')
  },

  async 'small talk'() {
    const client = await connect()
    assert.equal(await call(client, 'ping'), 'PONG')
    assert.equal(await call(client, 'ping', 'é'), 'é')
    assert.equal(await call(client, 'echo', 'hello'), 'hello')
    assert.equal(await call(client, 'select', 0), 'OK')
    assert.equal(await call(client, 'get', 'a key'), null)
    assert.equal(await call(client, 'exists', 'a key'), 0)
    assert.equal(await send(client, 'client', 'setname', 'a-name'), 'OK')
    assert.equal(await send(client, 'CLIENT', 'GETNAME'), 'a-name')
    assert.ok((await send(client, 'CLIENT', 'ID')) > 0)
  },

  async 'a message comes to who subscribed, until the unsubscribe'(here) {
    const [client, heard] = await subscriber(here, `${here}.more`)
    const publisher = await connect()
    assert.equal(await call(publisher, 'publish', here, 'one'), 1)
    assert.equal(await call(publisher, 'publish', `${here}.more`, 'two'), 1)
    assert.equal(await call(publisher, 'publish', `${here}.below`, 'three'), 0)
    assert.deepEqual(await heard.take(2), [['one', here], ['two', `${here}.more`]])
    assert.equal(await call(client, 'unsubscribe', here), here)
    assert.equal(await call(publisher, 'publish', here, 'four'), 0)
    await call(client, 'unsubscribe', `${here}.more`)
    assert.equal(await call(client, 'get', 'x'), null, 'an ordinary connection again')
    assert.equal(heard.length, 0)
  },

  async 'events tell how many subscriptions there are'(here) {
    const [client] = await subscriber()
    const told = new Inbox()
    for (const name of ['subscribe', 'psubscribe', 'unsubscribe', 'punsubscribe']) {
      client.on(name, (channel, count) => told.push(`${name} ${channel} ${count}`))
    }
    client.subscribe(`${here}a`, `${here}b`)
    client.psubscribe('c*')
    client.subscribe(`${here}a`)
    client.unsubscribe(`${here}a`, 'never')
    client.punsubscribe('c*')
    client.unsubscribe(`${here}b`)
    assert.equal(await call(client, 'unsubscribe'), null, 'there is nothing left')
    assert.deepEqual(await told.take(8), [
      `subscribe ${here}a 1`, `subscribe ${here}b 2`, 'psubscribe c* 3', `subscribe ${here}a 3`,
      `unsubscribe ${here}a 2`, 'unsubscribe never 2', 'punsubscribe c* 1', `unsubscribe ${here}b 0`,
    ])
  },

  async 'patterns'(here) {
    const [client, heard] = await subscriber()
    const publisher = await connect()
    await call(client, 'psubscribe', `${here}.*`, `${here}[1-3]`)
    assert.equal(await call(publisher, 'publish', `${here}.uk.london`, 'x'), 1)
    assert.equal(await call(publisher, 'publish', `${here}2`, 'y'), 1)
    assert.equal(await call(publisher, 'publish', here, 'z'), 0)
    assert.deepEqual(await heard.take(2), [['x', `${here}.uk.london`, `${here}.*`], ['y', `${here}2`, `${here}[1-3]`]])
    await call(client, 'punsubscribe', `${here}.*`)
    assert.equal(await call(publisher, 'publish', `${here}.uk`, 'late'), 0)
    assert.equal(heard.length, 0)
  },

  async 'channels and messages are bytes'(here) {
    const client = await connect({ return_buffers: true })
    const heard = new Inbox()
    client.on('message', (channel, message) => heard.push([channel, message]))
    client.on('pmessage', (pattern, channel, message) => heard.push([channel, message]))
    const named = (prefix) => Buffer.concat([Buffer.from(`${prefix}${here}`), BYTES])
    await call(client, 'subscribe', named('c'))
    await call(client, 'psubscribe', `p${here}*`)
    const publisher = await connect()
    for (const message of [BYTES, Buffer.alloc(0), Buffer.from('\r\n$3\r\n'), Buffer.alloc(900_000, 0xfe)]) {
      for (const channel of [named('c'), named('p')]) {
        assert.equal(await call(publisher, 'publish', channel, message), 1)
        assert.deepEqual(await heard.next(), [channel, message])
      }
    }
  },

  async 'a thousand messages in a row come in their order to everybody, and are counted'(here) {
    const subscribers = []
    for (let count = 0; count < MANY; count++) subscribers.push(await subscriber(here))
    const publishers = [await connect(), await connect()]
    const numbers = Array.from({ length: 1000 }, (_, number) => number)
    const counts = await Promise.all(
      publishers.flatMap((publisher, from) =>
        numbers.map((number) => call(publisher, 'publish', here, `${from} ${number}`))
      )
    )
    assert.ok(counts.every((count) => count === MANY))
    for (const [, heard] of subscribers) {
      const messages = (await heard.take(2000)).map(([message]) => message.split(' '))
      for (const from of ['0', '1']) {
        assert.deepEqual(messages.filter((words) => words[0] === from).map((words) => Number(words[1])), numbers)
      }
    }
  },

  async 'a batch is answered in its order'(here) {
    const client = await connect()
    const [, heard] = await subscriber(here)
    const batch = client.batch().publish(here, 'a').echo('b').publish(`${here}.nobody`, 'c').ping()
    batch.pubsub('numsub', here).publish(here, 'd')
    const replies = await within(new Promise((resolve) => batch.exec((_, replies) => resolve(replies))), 'the batch')
    assert.deepEqual(replies, [1, 'b', 0, 'PONG', [here, 1], 1])
    assert.deepEqual((await heard.take(2)).map(([message]) => message), ['a', 'd'])
  },

  async 'while subscribed, what RESP2 allows'(here) {
    const [client] = await subscriber(here)
    assert.deepEqual(await call(client, 'ping'), ['pong', ''])
    assert.deepEqual(await call(client, 'ping', 'é'), ['pong', 'é'])
    const refused = /ERR Can't execute 'get': only \(P\|S\)SUBSCRIBE/
    await assert.rejects(call(client, 'get', 'x'), refused)
  },

  async 'PUBSUB tells who listens'(here) {
    const client = await connect()
    await until(() => call(client, 'pubsub', 'numpat'), (count) => count === 0, 'no patterns of those before')
    const [first] = await subscriber(`${here}.a`, `${here}.b`)
    const [second] = await subscriber(`${here}.a`)
    await call(first, 'psubscribe', `${here}.p*`)
    await call(second, 'psubscribe', `${here}.p*`)
    assert.deepEqual((await call(client, 'pubsub', 'channels', `${here}.*`)).sort(), [`${here}.a`, `${here}.b`])
    const asked = ['a', 'b', 'c'].map((last) => `${here}.${last}`)
    assert.deepEqual(await call(client, 'pubsub', 'numsub', ...asked), [asked[0], 2, asked[1], 1, asked[2], 0])
    assert.equal(await call(client, 'pubsub', 'numpat'), 1)
  },

  async 'errors are those of Redis, and end nothing'() {
    const client = await connect()
    const check = (error, ...words) => assert.rejects(send(client, ...words), error)
    await check(/ERR unknown command 'foo', with args beginning with: 'bar' ?$/, 'foo', 'bar')
    await check(/ERR wrong number of arguments for 'publish' command/, 'publish', 'only a channel')
    await check(/ERR DB index is out of range/, 'select', '99')
    assert.equal(await call(client, 'ping'), 'PONG')
  },

  async 'quit is answered before the end'(here) {
    const [client] = await subscriber(here)
    const closed = event(client, 'end')
    assert.equal(await call(client, 'quit'), 'OK')
    await closed
    const witness = await connect()
    const count = async () => (await call(witness, 'pubsub', 'numsub', here))[1]
    await until(count, (count) => count === 0, 'it to be gone')
  },

  async 'who is cut off comes back with all subscriptions'(here) {
    const proxy = await proxyTo(address)
    try {
      const client = await connect({ ...hostAndPort(proxy.address), retry_strategy: () => 1 })
      const heard = new Inbox()
      client.on('message', (channel, message) => heard.push(`channel ${message}`))
      client.on('pmessage', (pattern, channel, message) => heard.push(`pattern ${message}`))
      await call(client, 'subscribe', here, `${here}.b`)
      await call(client, 'psubscribe', `p${here}*`)
      const publisher = await connect()
      for (let round = 0; round < 3; round++) {
        const ready = event(client, 'ready')
        proxy.cut()
        await ready
        // The connection that was cut may be the broker's for a moment longer.
        const count = async () => (await call(publisher, 'pubsub', 'numsub', here))[1]
        await until(count, (count) => count === 1, 'one of two')
        assert.equal(await call(publisher, 'publish', here, `${round}`), 1)
        assert.equal(await call(publisher, 'publish', `p${here}x`, `${round}`), 1)
        assert.deepEqual((await heard.take(2)).sort(), [`channel ${round}`, `pattern ${round}`])
      }
      client.end(false)
    } finally {
      proxy.close()
    }
  },
}

await run(cases, () => {
  for (const client of open) client.end(false)
  open = []
})
