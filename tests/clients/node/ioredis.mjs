// ioredis 5 and 6 with the broker in Redis' place: `node ioredis.mjs PACKAGE HOST:PORT [2|3]`, the last being the
// version of RESP to ask for where the package lets one choose. Prints a line per case; exits 1 if one failed.
//
// Everything holds for a real Redis 7 as well.

import assert from 'node:assert/strict'
import { event, hostAndPort, Inbox, run, until, within } from './cases.mjs'
import { proxyTo } from './proxy.mjs'

const [name, address, version] = process.argv.slice(2)
const { Redis } = await import(name)
const isResp3 = (version ?? (name === 'ioredis6' ? '3' : '2')) === '3'

/** Connections that are spread over the broker's shards, whichever they are. */
const MANY = 6
/** Every byte there is. */
const BYTES = Buffer.from(Array.from({ length: 256 }, (_, byte) => byte))

let open = []

/** A client that is ready, and gives up where it cannot be. */
async function connect(options = {}) {
  const client = new Redis({
    ...hostAndPort(address),
    ...(version && { protocol: Number(version) }),
    lazyConnect: true,
    retryStrategy: null,
    disconnectTimeout: 100, // for so long a client keeps the process from ending
    ...options,
  })
  client.errors = []
  client.on('error', (error) => client.errors.push(error))
  open.push(client)
  await within(client.connect(), 'ready')
  return client
}

/** Many clients, each ready. */
const connectMany = () => Promise.all(Array.from({ length: MANY }, () => connect()))

/** A client that listens to these channels, and what it hears of anything, as `[message, channel]`. */
async function subscriber(...channels) {
  const client = await connect()
  const heard = new Inbox()
  client.on('message', (channel, message) => heard.push([message, channel]))
  client.on('smessage', (channel, message) => heard.push([message, `shard ${channel}`]))
  client.on('pmessage', (pattern, channel, message) => heard.push([message, channel, pattern]))
  if (channels.length > 0) assert.equal(await client.subscribe(...channels), new Set(channels).size)
  return [client, heard]
}

const cases = {
  async 'connects, is ready, and answers small talk'() {
    const client = await connect()
    assert.equal(client.status, 'ready')
    assert.equal(await client.ping(), 'PONG')
    assert.equal(await client.ping('é'), 'é')
    assert.equal(await client.echo('hello'), 'hello')
    assert.equal(await client.select(0), 'OK')
    assert.equal(await client.get('a key'), null)
    assert.equal(await client.exists('a key'), 0)
    const [seconds, micros] = await client.time()
    assert.ok(Math.abs(seconds - Date.now() / 1000) < 60 && micros < 1e6)
    const info = await client.info()
    assert.match(info, /^redis_version:\d+\.\d+\.\d+\r$/m)
    assert.match(info, /^role:master\r$/m)
    assert.deepEqual(client.errors, [])
  },

  async 'a client has an id, a name, and a line in the list'(here) {
    const [client, other] = [await connect({ connectionName: here, db: 1 }), await connect()]
    assert.equal(await client.client('GETNAME'), here)
    assert.equal(await other.client('GETNAME'), null)
    assert.equal(await other.client('SETNAME', 'late'), 'OK')
    assert.equal(await other.client('GETNAME'), 'late')
    const [id, otherId] = [await client.client('ID'), await other.client('ID')]
    assert.ok(Number.isInteger(id) && id > 0 && id !== otherId, `${id} ${otherId}`)
    assert.match(await client.client('INFO'), new RegExp(`^id=${id} .* name=${here} `))
    const listed = (await client.client('LIST')).split('\n')
    assert.ok(listed.some((line) => line.startsWith(`id=${id} `) && line.includes(` name=${here} `)), listed.join('\n'))
  },

  async 'a message comes to who subscribed, until the unsubscribe'(here) {
    const [client, heard] = await subscriber(here, `${here}.more`)
    const publisher = await connect()
    assert.equal(await publisher.publish(here, 'one'), 1)
    assert.equal(await publisher.publish(`${here}.more`, 'two'), 1)
    assert.equal(await publisher.publish(`${here}.below`, 'three'), 0)
    assert.deepEqual(await heard.take(2), [['one', here], ['two', `${here}.more`]])
    assert.equal(await client.unsubscribe(here), 1)
    assert.equal(await publisher.publish(here, 'four'), 0)
    assert.equal(await publisher.publish(`${here}.more`, 'five'), 1)
    assert.deepEqual(await heard.next(), ['five', `${here}.more`])
    assert.equal(await client.unsubscribe(`${here}.more`), 0)
    assert.equal(await client.get('x'), null, 'an ordinary connection again')
    assert.equal(heard.length, 0)
  },

  async 'channels and patterns are counted together, shard channels by themselves'(here) {
    const [client] = await subscriber()
    assert.equal(await client.subscribe('a', 'b'), 2)
    assert.equal(await client.psubscribe('c*'), 3)
    assert.equal(await client.subscribe('a'), 3, 'a second time')
    assert.equal(await client.ssubscribe(`{${here}}1`, `{${here}}2`), 2)
    assert.equal(await client.psubscribe('d*', 'e?'), 5)
    assert.equal(await client.unsubscribe('never'), 5)
    assert.equal(await client.unsubscribe('a', 'b'), 3)
    assert.equal(await client.sunsubscribe(`{${here}}1`), 1)
    assert.equal(await client.punsubscribe('c*', 'd*'), 1)
  },

  async 'patterns and shard channels'(here) {
    const [client, heard] = await subscriber()
    const publisher = await connect()
    await client.psubscribe(`${here}.*`, `${here}[1-3]`)
    await client.ssubscribe(here)
    assert.equal(await publisher.publish(`${here}.uk.london`, 'x'), 1)
    assert.equal(await publisher.publish(`${here}2`, 'y'), 1)
    assert.equal(await publisher.publish(here, 'z'), 0)
    assert.equal(await publisher.spublish(here, 's'), 1)
    assert.equal(await publisher.spublish(`${here}2`, 't'), 0)
    assert.deepEqual(await heard.take(3), [
      ['x', `${here}.uk.london`, `${here}.*`],
      ['y', `${here}2`, `${here}[1-3]`],
      ['s', `shard ${here}`],
    ])
    assert.deepEqual(await publisher.pubsub('SHARDCHANNELS', `${here}*`), [here])
    assert.deepEqual(await publisher.pubsub('SHARDNUMSUB', here, 'nobody'), [here, 1, 'nobody', 0])
    await client.punsubscribe(`${here}.*`)
    assert.equal(await publisher.publish(`${here}.uk`, 'late'), 0)
    assert.equal(heard.length, 0)
  },

  async 'channels and messages are bytes'(here) {
    const client = await connect()
    const heard = new Inbox()
    client.on('messageBuffer', (channel, message) => heard.push([channel, message]))
    client.on('smessageBuffer', (channel, message) => heard.push([channel, message]))
    client.on('pmessageBuffer', (pattern, channel, message) => heard.push([channel, message]))
    const named = (prefix) => Buffer.concat([Buffer.from(`${prefix}${here}`), BYTES])
    await client.subscribe(named('c'))
    await client.ssubscribe(named('s'))
    await client.psubscribe(`p${here}*`)
    const publisher = await connect()
    for (const message of [BYTES, Buffer.alloc(0), Buffer.from('\r\n$3\r\n'), Buffer.alloc(900_000, 0xfe)]) {
      for (const [command, channel] of [['publish', named('c')], ['spublish', named('s')], ['publish', named('p')]]) {
        assert.equal(await publisher[command](channel, message), 1)
        assert.deepEqual(await heard.next(), [channel, message])
      }
    }
    assert.deepEqual(await publisher.pubsubBuffer('NUMSUB', named('c')), [named('c'), 1])
  },

  async 'a publish counts every subscription on every shard'(here) {
    const clients = await connectMany()
    const publishers = await connectMany()
    for (const [index, client] of clients.entries()) {
      await client.subscribe(here)
      for (const publisher of publishers) assert.equal(await publisher.publish(here, 'x'), index + 1)
    }
    await clients[0].psubscribe(`${here}*`)
    for (const publisher of publishers) assert.equal(await publisher.publish(here, 'y'), MANY + 1)
    for (const [index, client] of clients.entries()) {
      await client.unsubscribe(here)
      for (const publisher of publishers) assert.equal(await publisher.publish(here, 'z'), MANY - index)
    }
  },

  async 'a thousand pipelined messages come in their order to everybody'(here) {
    const subscribers = await Promise.all(Array.from({ length: MANY }, () => subscriber(here)))
    const publishers = [await connect(), await connect({ enableAutoPipelining: true })]
    const numbers = Array.from({ length: 1000 }, (_, number) => number)
    const counts = await Promise.all(
      publishers.flatMap((publisher, from) => numbers.map((number) => publisher.publish(here, `${from} ${number}`)))
    )
    assert.ok(counts.every((count) => count === MANY))
    for (const [, heard] of subscribers) {
      const messages = (await heard.take(2000)).map(([message]) => message.split(' '))
      for (const from of ['0', '1']) {
        assert.deepEqual(messages.filter((words) => words[0] === from).map((words) => Number(words[1])), numbers)
      }
      assert.equal(heard.length, 0)
    }
  },

  async 'what is pipelined is answered in its order'(here) {
    const client = await connect()
    const [, heard] = await subscriber(here)
    const pipeline = client.pipeline().publish(here, 'a').echo('b').publish(`${here}.nobody`, 'c').ping()
    const replies = await pipeline.pubsub('NUMSUB', here).call('foo').publish(here, 'd').exec()
    const values = replies.map(([error, value]) => (error ? error.message : value))
    assert.match(values.splice(5, 1)[0], /ERR unknown command 'foo'/)
    assert.deepEqual(values, [1, 'b', 0, 'PONG', [here, 1], 1])
    assert.deepEqual((await heard.take(2)).map(([message]) => message), ['a', 'd'])
  },

  async 'while subscribed, what RESP allows'(here) {
    const [client, heard] = await subscriber(here)
    if (isResp3) {
      assert.equal(await client.ping(), 'PONG')
      assert.equal(await client.get('x'), null)
      // Its own message comes before the count of the publish.
      const log = []
      client.on('message', (channel, message) => log.push(message))
      log.push(await client.publish(here, 'own'))
      assert.deepEqual(log, ['own', 1])
      // Confirmations keep their place among the replies.
      const replies = [
        client.publish(here, 'x'),
        client.subscribe(`${here}.b`),
        client.echo('between'),
        client.unsubscribe(`${here}.b`),
        client.publish(`${here}.b`, 'y'),
      ]
      assert.deepEqual(await Promise.all(replies), [1, 2, 'between', 1, 0])
      assert.deepEqual((await heard.take(2)).map(([message]) => message), ['own', 'x'])
    } else {
      assert.deepEqual(await client.ping(), ['pong', ''])
      assert.deepEqual(await client.ping('é'), ['pong', 'é'])
      await assert.rejects(client.get('x'), /Connection in subscriber mode/, 'which the client knows by itself')
      await client.unsubscribe(here)
      assert.equal(await client.ping(), 'PONG')
      assert.equal(await client.get('x'), null)
    }
  },

  async 'PUBSUB tells who listens'(here) {
    const client = await connect()
    await until(() => client.pubsub('NUMPAT'), (count) => count === 0, 'no patterns of those before')
    const [first] = await subscriber(`${here}.a`, `${here}.b`)
    const [second] = await subscriber(`${here}.a`, `${here}.a`)
    await first.psubscribe(`${here}.p*`, `${here}.q*`)
    await second.psubscribe(`${here}.p*`)
    assert.deepEqual((await client.pubsub('CHANNELS', `${here}.*`)).sort(), [`${here}.a`, `${here}.b`])
    assert.deepEqual(await client.pubsub('NUMSUB'), [])
    const asked = ['a', 'b', 'c'].map((last) => `${here}.${last}`)
    assert.deepEqual(await client.pubsub('NUMSUB', ...asked), [asked[0], 2, asked[1], 1, asked[2], 0])
    assert.equal(await client.pubsub('NUMPAT'), 2)
    second.disconnect()
    const count = async () => (await client.pubsub('NUMSUB', asked[0]))[1]
    await until(count, (count) => count === 1, 'the second to be gone')
  },

  async 'errors are those of Redis, and end nothing'() {
    const client = await connect()
    const check = (words, error) => assert.rejects(client.call(...words), error, words.join(' '))
    await check(['foo', 'bar'], /ERR unknown command 'foo', with args beginning with: 'bar' ?$/)
    await check(['publish', 'only a channel'], /ERR wrong number of arguments for 'publish' command/)
    await check(['pubsub', 'dance'], /ERR unknown subcommand/i)
    await check(['auth', 'a word'], /ERR AUTH <password> called without any password configured for the default user/)
    await check(['select', '99'], /ERR DB index is out of range/)
    await check(['cluster', 'info'], /ERR This instance has cluster support disabled/)
    assert.equal(await client.ping(), 'PONG')
  },

  async 'quit is answered before the end'(here) {
    const [client] = await subscriber(here)
    const closed = event(client, 'end')
    assert.equal(await within(client.quit(), 'quit'), 'OK')
    await closed
    const witness = await connect()
    const count = async () => (await witness.pubsub('NUMSUB', here))[1]
    await until(count, (count) => count === 0, 'it to be gone')
  },

  async 'who is cut off comes back with all subscriptions'(here) {
    const proxy = await proxyTo(address)
    try {
      const client = await connect({ ...hostAndPort(proxy.address), retryStrategy: () => 1 })
      const heard = new Inbox()
      client.on('message', (channel, message) => heard.push(`channel ${message}`))
      client.on('pmessage', (pattern, channel, message) => heard.push(`pattern ${message}`))
      client.on('smessage', (channel, message) => heard.push(`shard ${message}`))
      await client.subscribe(here, `${here}.b`)
      await client.psubscribe(`p${here}*`)
      await client.ssubscribe(`s${here}`)
      const publisher = await connect()
      for (let round = 0; round < 3; round++) {
        const ready = event(client, 'ready')
        proxy.cut()
        await ready
        // It subscribes anew once it is ready; what it says next comes behind that.
        await client.ping()
        // The connection that was cut may be the broker's for a moment longer.
        const count = async () => (await publisher.pubsub('NUMSUB', here))[1]
        await until(count, (count) => count === 1, 'one of two')
        assert.equal(await publisher.publish(here, `${round}`), 1)
        assert.equal(await publisher.publish(`p${here}x`, `${round}`), 1)
        assert.equal(await publisher.spublish(`s${here}`, `${round}`), 1)
        assert.deepEqual((await heard.take(3)).sort(), [`channel ${round}`, `pattern ${round}`, `shard ${round}`])
      }
      client.disconnect()
    } finally {
      proxy.close()
    }
  },
}

await run(cases, () => {
  for (const client of open) client.disconnect()
  open = []
})
