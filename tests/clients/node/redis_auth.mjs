// A Redis client before a broker that wants a password: `node redis_auth.mjs PACKAGE HOST:PORT PASSWORD`. Prints a line
// per case; exits 1 if one failed.
//
// One package a run: a broker that has been told many wrong passwords refuses the address that they came from.
// Everything holds for a real Redis 7 as well.

import assert from 'node:assert/strict'
import { hostAndPort, Inbox, run, within } from './cases.mjs'

const [name, address, password] = process.argv.slice(2)
const target = hostAndPort(address)

const NOAUTH = /NOAUTH .*[Aa]uthenticat/
const WRONGPASS = /WRONGPASS invalid username-password pair or user is disabled/

let ends = []

/** A promise of node-redis 3's callbacks. */
const call = (client, command, ...words) =>
  within(
    new Promise((resolve, reject) => {
      client[command](...words, (error, value) => (error ? reject(error) : resolve(value)))
    }),
    command
  )

/** How each package is told of a password and gets ready, and how it says what a case wants said. */
const packages = {
  redis3,
  redis4: nodeRedis,
  redis5: nodeRedis,
  redis6: nodeRedis,
  ioredis5: ioredis,
  ioredis6: ioredis,
}

function redis3({ createClient }) {
  return {
    async connect({ username: user, password }) {
      const client = createClient({ ...target, user, password, retry_strategy: () => undefined })
      ends.push(() => client.end(false))
      const failed = new Promise((_, reject) => client.on('error', reject))
      const ready = new Promise((resolve) => client.on('ready', resolve))
      await within(Promise.race([ready, failed]), 'ready')
      return client
    },
    subscribe: async (client, channel, listener) => {
      client.on('message', (_, message) => listener(message))
      await call(client, 'subscribe', channel)
    },
    publish: (client, channel, message) => call(client, 'publish', channel, message),
    say: (client, ...words) => call(client, 'send_command', words[0], words.slice(1)),
  }
}

function nodeRedis({ createClient }) {
  return {
    async connect(given) {
      const client = createClient({ socket: { ...target, reconnectStrategy: false }, ...given })
      client.on('error', () => {})
      ends.push(() => client.isOpen && (client.destroy ? client.destroy() : client.disconnect()))
      await within(client.connect(), 'ready')
      return client
    },
    subscribe: (client, channel, listener) => client.subscribe(channel, listener),
    publish: (client, channel, message) => client.publish(channel, message),
    say: (client, ...words) => client.sendCommand(words),
  }
}

function ioredis({ Redis }) {
  return {
    async connect(given) {
      const client = new Redis({ ...target, ...given, lazyConnect: true, retryStrategy: null, disconnectTimeout: 100 })
      ends.push(() => client.disconnect())
      const failed = new Promise((_, reject) => client.on('error', reject))
      await within(Promise.race([client.connect().then(() => client.ping()), failed]), 'ready')
      return client
    },
    subscribe: async (client, channel, listener) => {
      client.on('message', (_, message) => listener(message))
      await client.subscribe(channel)
    },
    publish: (client, channel, message) => client.publish(channel, message),
    say: (client, ...words) => client.call(...words),
  }
}

const { connect, subscribe, publish, say } = packages[name](await import(name))

const cases = {
  async 'the right password, alone and with the only name there is'(here) {
    for (const given of [{ password }, { password, username: 'default' }]) {
      const channel = `${here}.${given.username}`
      const [client, publisher] = [await connect(given), await connect(given)]
      const heard = new Inbox()
      await subscribe(client, channel, (message) => heard.push(message))
      assert.equal(await publish(publisher, channel, 'x'), 1)
      assert.equal(await heard.next(), 'x')
    }
  },

  async 'a wrong one is refused'() {
    await assert.rejects(connect({ password: 'wrong' }), WRONGPASS)
    await assert.rejects(connect({ password, username: 'somebody' }), WRONGPASS)
  },

  async 'without one, nothing is done'(here) {
    const tried = async () => {
      // Some find out while they connect, some only when they say something.
      const client = await connect({})
      for (const words of [['PUBLISH', here, 'x'], ['PUBSUB', 'CHANNELS'], ['CLIENT', 'ID']]) {
        await assert.rejects(say(client, ...words), NOAUTH)
      }
      await subscribe(client, here, () => {})
    }
    await assert.rejects(tried(), NOAUTH)
  },
}

await run(cases, () => {
  for (const end of ends) end()
  ends = []
})
