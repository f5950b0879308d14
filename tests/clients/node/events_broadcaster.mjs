// What events-broadcaster does with its pair of Redis clients, with the broker in Redis' place:
// `node events_broadcaster.mjs HOST:PORT`. Servers subscribe to a room while somebody there listens, and only then.
// Prints a line per case; exits 1 if one failed.
//
// Everything holds for a real Redis 7 as well.

import assert from 'node:assert/strict'
import { Redis } from 'ioredis5'
import redis from 'redis3'
import { event, hostAndPort, Inbox, run, until, within } from './cases.mjs'

const address = process.argv[2]

/** One server's broadcaster: the first of a room subscribes, the last one unsubscribes, both by callbacks. */
class Broadcaster {
  constructor({ subscriber, publisher }) {
    Object.assign(this, { subscriber, publisher, counts: new Map(), said: [], heard: new Inbox() })
    subscriber.on('message', (channel, message) => this.heard.push([channel, message]))
  }

  maybeSubscribe(channel, done) {
    const count = this.counts.get(channel)
    if (count > 0) {
      this.counts.set(channel, count + 1)
      return done(null)
    }
    this.said.push(`subscribe ${channel}`)
    this.subscriber.subscribe(channel, (error) => {
      // Two that come at once are both the first; the original counts them as one too.
      this.counts.set(channel, 1)
      done(error)
    })
  }

  maybeUnsubscribe(channel, done) {
    const count = this.counts.get(channel)
    if (count > 1) {
      this.counts.set(channel, count - 1)
      return done(null)
    }
    // Also for a channel that nobody subscribed to.
    this.counts.delete(channel)
    this.said.push(`unsubscribe ${channel}`)
    this.subscriber.unsubscribe(channel, done)
  }

  publish(channel, message) {
    this.publisher.publish(channel, message)
  }

  join = (channel) => within(new Promise((resolve) => this.maybeSubscribe(channel, resolve)), `join ${channel}`)
  leave = (channel) => within(new Promise((resolve) => this.maybeUnsubscribe(channel, resolve)), `leave ${channel}`)
}

let open = []

/** A client of one of the two packages whose API takes callbacks. */
async function connect(Package) {
  const target = hostAndPort(address)
  const client = Package === redis ? redis.createClient(target) : new Redis({ ...target, disconnectTimeout: 100 })
  open.push(client)
  client.on('error', () => {})
  await event(client, 'ready')
  return client
}

async function server(Package) {
  return new Broadcaster({ subscriber: await connect(Package), publisher: await connect(Package) })
}

/** How many servers listen, as the broker counts them. */
async function listening(channel) {
  const [asker] = open.slice(-1)
  return within(new Promise((resolve) => asker.pubsub('NUMSUB', channel, (_, reply) => resolve(reply[1]))), 'NUMSUB')
}

const casesOf = (Package, name) => ({
  async [`${name}: the first of a room subscribes, the last one unsubscribes`](here) {
    const [one, two] = [await server(Package), await server(Package)]
    for (let member = 0; member < 3; member++) {
      await one.join(here)
      assert.equal(await listening(here), 1)
    }
    await two.join(here)
    await two.join(here)
    assert.equal(await listening(here), 2)
    for (let member = 0; member < 2; member++) {
      await one.leave(here)
      assert.equal(await listening(here), 2)
    }
    await one.leave(here)
    assert.equal(await listening(here), 1)
    await two.leave(here)
    await two.leave(here)
    assert.equal(await listening(here), 0)
    for (const { said } of [one, two]) assert.deepEqual(said, [`subscribe ${here}`, `unsubscribe ${here}`])
  },

  async [`${name}: each server hears each message once, its own included, in order`](here) {
    const servers = [await server(Package), await server(Package), await server(Package)]
    for (const server of servers) {
      await server.join(here)
      await server.join(here)
    }
    const numbers = Array.from({ length: 200 }, (_, number) => number)
    for (const number of numbers) {
      for (const [index, server] of servers.entries()) server.publish(here, JSON.stringify([index, number]))
    }
    for (const server of servers) {
      const heard = (await server.heard.take(600)).map(([channel, message]) => [channel, ...JSON.parse(message)])
      assert.ok(heard.every(([channel]) => channel === here))
      for (const index of servers.keys()) {
        assert.deepEqual(heard.filter(([, from]) => from === index).map(([, , number]) => number), numbers)
      }
      assert.equal(server.heard.length, 0)
    }
  },

  async [`${name}: who has joined hears what is published next, who has left does not`](here) {
    const [one, two] = [await server(Package), await server(Package)]
    await one.join(`${here}.after`)
    for (let round = 0; round < 50; round++) {
      await one.join(here)
      two.publish(here, `${round}`)
      assert.deepEqual(await one.heard.next(), [here, `${round}`])
      await one.leave(here)
      two.publish(here, 'nobody')
      two.publish(`${here}.after`, 'after')
      assert.deepEqual(await one.heard.next(), [`${here}.after`, 'after'])
    }
  },

  async [`${name}: leaving what was never joined, and joining twice at once`](here) {
    const [one, two] = [await server(Package), await server(Package)]
    await one.leave(`${here}.never`)
    await Promise.all([one.join(here), one.join(here)])
    assert.deepEqual(one.said, [`unsubscribe ${here}.never`, `subscribe ${here}`, `subscribe ${here}`])
    assert.equal(await listening(here), 1, 'one connection is one subscriber')
    two.publish(here, 'x')
    two.publish(here, 'y')
    assert.deepEqual(await one.heard.take(2), [[here, 'x'], [here, 'y']])
    await one.leave(here)
    assert.equal(await listening(here), 0)
    assert.equal(one.heard.length, 0)
  },

  async [`${name}: a server that ends takes its subscriptions with it`](here) {
    const [one, two] = [await server(Package), await server(Package)]
    for (const server of [one, two]) await server.join(here)
    one.subscriber.quit()
    await until(() => listening(here), (count) => count === 1, 'one server')
    two.publish(here, 'still')
    assert.deepEqual(await two.heard.next(), [here, 'still'])
  },
})

await run({ ...casesOf(redis, 'redis 3'), ...casesOf(Redis, 'ioredis') }, () => {
  for (const client of open) client.end ? client.end(false) : client.disconnect()
  open = []
})
