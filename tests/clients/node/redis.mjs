// node-redis 4, 5 and 6 with the broker in Redis' place: `node redis.mjs PACKAGE HOST:PORT [2|3]`, the last being the
// version of RESP to ask for where the package lets one choose. Prints a line per case; exits 1 if one failed.
//
// Everything holds for a real Redis 7 as well.

import assert from 'node:assert/strict'
import { event, hostAndPort, Inbox, run, until, within } from './cases.mjs'
import { proxyTo } from './proxy.mjs'

const [name, address, version] = process.argv.slice(2)
const { createClient } = await import(name)
const isResp3 = (version ?? (name === 'redis6' ? '3' : '2')) === '3'

/** Connections that are spread over the broker's shards, whichever they are. */
const MANY = 6
/** Every byte there is. */
const BYTES = Buffer.from(Array.from({ length: 256 }, (_, byte) => byte))

let open = []

/** A client that is ready, and gives up where it cannot be. */
async function connect({ socket, ...options } = {}) {
  const client = createClient({
    socket: { ...hostAndPort(address), reconnectStrategy: false, ...socket },
    ...(version && { RESP: Number(version) }),
    ...options,
  })
  client.errors = []
  client.on('error', (error) => client.errors.push(error))
  open.push(client)
  await within(client.connect(), 'ready')
  return client
}

/** Ends it without a word. */
const destroy = (client) => (client.destroy ? client.destroy() : client.disconnect())

/** Many clients, each ready. */
const connectMany = () => Promise.all(Array.from({ length: MANY }, () => connect()))

/** A client that listens to these channels, and what it hears of them, as `[message, channel]`. */
async function subscriber(...channels) {
  const client = await connect()
  const heard = new Inbox()
  await client.subscribe(channels, (message, channel) => heard.push([message, channel]))
  return [client, heard]
}

const cases = {
  async 'connects, is ready, and answers small talk'() {
    const client = await connect()
    assert.equal(client.isReady, true)
    assert.equal(await client.ping(), 'PONG')
    assert.equal(await client.sendCommand(['ping', 'é']), 'é')
    assert.equal(await client.echo('hello'), 'hello')
    await client.select(1)
    assert.equal(await client.sendCommand(['SELECT', '0']), 'OK')
    assert.equal(await client.get('a key'), null)
    assert.equal(await client.exists('a key'), 0)
    const [seconds, micros] = await client.sendCommand(['TIME'])
    assert.ok(Math.abs(seconds - Date.now() / 1000) < 60 && micros < 1e6)
    assert.deepEqual(client.errors, [])
  },

  async 'INFO says what ready checks look for'() {
    const client = await connect()
    const info = await client.info()
    assert.match(info, /^redis_version:\d+\.\d+\.\d+\r$/m)
    assert.match(info, /^redis_mode:standalone\r$/m)
    assert.match(info, /^role:master\r$/m)
    assert.doesNotMatch(info, /loading:1/)
    assert.match(await client.info('server'), /^redis_version:/m)
  },

  async 'a client has an id, a name, and a line in the list'(here) {
    const [client, other] = [await connect({ name: here }), await connect()]
    assert.equal(await client.clientGetName(), here)
    assert.equal(await other.clientGetName(), null)
    await other.sendCommand(['CLIENT', 'SETNAME', 'late'])
    assert.equal(await other.clientGetName(), 'late')
    const [id, otherId] = [await client.clientId(), await other.clientId()]
    assert.ok(Number.isInteger(id) && id > 0 && id !== otherId, `${id} ${otherId}`)
    const mine = await client.clientInfo()
    assert.deepEqual([mine.id, mine.name], [id, here])
    const listed = String(await client.sendCommand(['CLIENT', 'LIST'])).split('\n')
    assert.ok(listed.some((line) => line.startsWith(`id=${id} `) && line.includes(` name=${here} `)), listed.join('\n'))
    await assert.rejects(client.sendCommand(['CLIENT', 'SETNAME', 'with space']), /cannot contain spaces/)
  },

  async 'a message comes to who subscribed, until the unsubscribe'(here) {
    const [client, heard] = await subscriber(here, `${here}.more`)
    const publisher = await connect()
    assert.equal(await publisher.publish(here, 'one'), 1)
    assert.equal(await publisher.publish(`${here}.more`, 'two'), 1)
    assert.equal(await publisher.publish(`${here}.below`, 'three'), 0)
    assert.deepEqual(await heard.take(2), [['one', here], ['two', `${here}.more`]])
    await client.unsubscribe(here)
    assert.equal(await publisher.publish(here, 'four'), 0)
    assert.equal(await publisher.publish(`${here}.more`, 'five'), 1)
    assert.deepEqual(await heard.next(), ['five', `${here}.more`])
    await client.unsubscribe(`${here}.more`)
    assert.equal(await client.get('x'), null, 'an ordinary connection again')
    assert.equal(heard.length, 0)
  },

  async 'a pattern is a glob'(here) {
    const client = await connect()
    const publisher = await connect()
    const check = async (pattern, yes, no) => {
      const heard = new Inbox()
      await client.pSubscribe(pattern, (message, channel) => heard.push([message, channel]))
      for (const channel of no) assert.equal(await publisher.publish(channel, 'x'), 0, `${pattern} ${channel}`)
      for (const channel of yes) {
        assert.equal(await publisher.publish(channel, 'y'), 1, `${pattern} ${channel}`)
        assert.deepEqual(await heard.next(), ['y', channel])
      }
      await client.pUnsubscribe(pattern)
      assert.equal(await publisher.publish(yes[0], 'z'), 0)
      assert.equal(heard.length, 0)
    }
    await check(`${here}.*`, [`${here}.uk`, `${here}.uk.london`, `${here}.`], [here, `x${here}.uk`, `${here}x`])
    await check(`${here}?`, [`${here}1`, `${here}?`], [here, `${here}12`])
    await check(`${here}[a-c]*`, [`${here}a`, `${here}bxyz`], [`${here}d`, here])
    await check(`${here}[^a]`, [`${here}b`, `${here}^`], [`${here}a`])
    await check(`${here}\\*`, [`${here}*`], [`${here}x`, `${here}\\*`])
    await check(`*${here}#/#*`, [`${here}#/#room#`, `socket.io${here}#/#`], [`${here}#/`])
  },

  async 'a channel and two patterns that match are three messages'(here) {
    const client = await connect()
    const heard = new Inbox()
    await client.subscribe(here, (message) => heard.push(`channel ${message}`))
    await client.pSubscribe([`${here}*`, `*${here}`], (message) => heard.push(`pattern ${message}`))
    const publisher = await connect()
    assert.equal(await publisher.publish(here, 'x'), 3)
    assert.deepEqual((await heard.take(3)).sort(), ['channel x', 'pattern x', 'pattern x'])
  },

  async 'shard channels are names of their own'(here) {
    const client = await connect()
    const [sharded, plain] = [new Inbox(), new Inbox()]
    await client.sSubscribe([here, `{${here}}2`], (message, channel) => sharded.push([message, channel]))
    await client.subscribe(here, (message, channel) => plain.push([message, channel]))
    const publisher = await connect()
    const spublish = (channel, message) => publisher.sendCommand(['SPUBLISH', channel, message])
    assert.equal(await spublish(here, 'to the shard channel'), 1)
    assert.equal(await publisher.publish(here, 'to the channel'), 1)
    assert.equal(await spublish(`{${here}}2`, 'again'), 1)
    assert.deepEqual(await sharded.take(2), [['to the shard channel', here], ['again', `{${here}}2`]])
    assert.deepEqual(await plain.next(), ['to the channel', here])
    assert.deepEqual(await publisher.pubSubShardChannels(`*${here}*`).then((list) => list.sort()), [here, `{${here}}2`])
    assert.deepEqual({ ...(await publisher.pubSubShardNumSub([here, 'nobody'])) }, { [here]: 1, nobody: 0 })
    await client.sUnsubscribe(here)
    assert.equal(await spublish(here, 'too late'), 0)
    await client.sUnsubscribe(`{${here}}2`)
    assert.deepEqual([sharded.length, plain.length], [0, 0])
  },

  async 'messages are bytes'(here) {
    const client = await connect()
    const heard = new Inbox()
    const take = (message, channel) => heard.push([message, channel])
    await client.subscribe(`é😀${here}`, take, true)
    await client.pSubscribe(`p${here}*`, take, true)
    await client.sSubscribe(`s${here}`, take, true)
    const publisher = await connect()
    const check = async (command, channel, message) => {
      assert.equal(await publisher.sendCommand([command, channel, message]), 1)
      assert.deepEqual(await heard.next(), [Buffer.from(message), Buffer.from(channel)])
    }
    for (const message of [BYTES, Buffer.alloc(0), Buffer.from('\r\n$3\r\n'), Buffer.alloc(900_000, 0xfe)]) {
      await check('PUBLISH', `é😀${here}`, message)
      await check('SPUBLISH', `s${here}`, message)
      // As an adapter's names may be: a channel that is no text.
      await check('PUBLISH', Buffer.concat([Buffer.from(`p${here}`), BYTES]), message)
    }
  },

  async 'a publish counts every subscription on every shard'(here) {
    const clients = await connectMany()
    const heard = new Inbox()
    const publishers = await connectMany()
    for (const [index, client] of clients.entries()) {
      await client.subscribe(here, (message) => heard.push(message))
      for (const publisher of publishers) assert.equal(await publisher.publish(here, 'x'), index + 1)
      await heard.take(MANY * (index + 1))
    }
    await clients[0].pSubscribe(`${here}*`, (message) => heard.push(message))
    for (const publisher of publishers) assert.equal(await publisher.publish(here, 'y'), MANY + 1)
    await heard.take(MANY * (MANY + 1))
    for (const [index, client] of clients.entries()) {
      await client.unsubscribe(here)
      for (const publisher of publishers) assert.equal(await publisher.publish(here, 'z'), MANY - index)
      await heard.take(MANY * (MANY - index))
    }
    assert.equal(heard.length, 0)
  },

  async 'a thousand pipelined messages come in their order to everybody'(here) {
    const subscribers = await Promise.all(Array.from({ length: MANY }, () => subscriber(here)))
    const publishers = [await connect(), await connect()]
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
    const replies = await client
      .multi()
      .publish(here, 'a')
      .echo('b')
      .publish(`${here}.nobody`, 'c')
      .ping()
      .addCommand(['pubsub', 'numsub', here])
      .publish(here, 'd')
      .execAsPipeline()
    assert.deepEqual(replies, [1, 'b', 0, 'PONG', [here, 1], 1])
    assert.deepEqual((await heard.take(2)).map(([message]) => message), ['a', 'd'])
  },

  async 'while subscribed, what RESP allows'(here) {
    const [client, heard] = await subscriber(here)
    // As a message in RESP2, whose word is in lower case.
    assert.equal(await client.ping(), isResp3 ? 'PONG' : 'pong')
    if (isResp3) {
      assert.equal(await client.get('x'), null)
      assert.equal(await client.echo('x'), 'x')
      // Its own message comes before the count.
      const log = []
      await client.subscribe(`${here}.own`, (message) => log.push(message))
      log.push(await client.publish(`${here}.own`, 'own'))
      assert.deepEqual(log, ['own', 1])
      const counts = await Promise.all(Array.from({ length: 100 }, (_, number) => client.publish(here, `${number}`)))
      assert.ok(counts.every((count) => count === 1))
      assert.deepEqual((await heard.take(100)).map(([message]) => Number(message)), [...counts.keys()])
    } else {
      const allowed = '(P|S)SUBSCRIBE / (P|S)UNSUBSCRIBE / PING / QUIT / RESET'
      const message = `ERR Can't execute 'get': only ${allowed} are allowed in this context`
      await assert.rejects(client.get('x'), { message })
      await client.unsubscribe(here)
      assert.equal(String(await client.ping()), 'PONG', 'an ordinary connection again')
      assert.equal(await client.get('x'), null)
    }
  },

  async 'subscribing twice is one subscription'(here) {
    const [client, heard] = await subscriber(here, here)
    const publisher = await connect()
    const again = new Inbox()
    const listener = (message) => again.push(message)
    await client.subscribe(here, listener)
    assert.equal(await publisher.publish(here, 'x'), 1)
    assert.deepEqual([await heard.next(), await again.next()], [['x', here], 'x'])
    await client.unsubscribe(here, listener)
    assert.equal(await publisher.publish(here, 'y'), 1)
    assert.deepEqual(await heard.next(), ['y', here])
    await client.unsubscribe(here)
    assert.equal(await publisher.publish(here, 'z'), 0)
    assert.deepEqual([heard.length, again.length], [0, 0])
  },

  async 'PUBSUB tells who listens'(here) {
    const client = await connect()
    // Who was here before may still be on their way out.
    await until(() => client.pubSubNumPat(), (count) => count === 0, 'no patterns')
    const [first] = await subscriber(`${here}.a`, `${here}.b`)
    const [second] = await subscriber(`${here}.a`)
    await first.pSubscribe([`${here}.p*`, `${here}.q*`], () => {})
    await second.pSubscribe(`${here}.p*`, () => {})
    assert.deepEqual((await client.pubSubChannels(`${here}.*`)).sort(), [`${here}.a`, `${here}.b`])
    assert.deepEqual((await client.pubSubChannels()).filter((channel) => channel.startsWith(here)).length, 2)
    assert.deepEqual(await client.pubSubChannels(`${here}.p*`), [], 'patterns are no channels')
    const counts = await client.pubSubNumSub([`${here}.a`, `${here}.b`, `${here}.c`])
    assert.deepEqual({ ...counts }, { [`${here}.a`]: 2, [`${here}.b`]: 1, [`${here}.c`]: 0 })
    assert.deepEqual(await client.sendCommand(['PUBSUB', 'NUMSUB', `${here}.a`]), [`${here}.a`, 2])
    assert.equal(await client.pubSubNumPat(), 2)
    destroy(second)
    await until(() => client.pubSubNumSub(`${here}.a`), (counts) => counts[`${here}.a`] === 1, 'the second to be gone')
    assert.equal(await client.pubSubNumPat(), 2)
  },

  async 'errors are those of Redis, and end nothing'() {
    const client = await connect()
    const check = (words, error) => assert.rejects(client.sendCommand(words), error, words.join(' '))
    await check(['foo', 'bar'], /ERR unknown command 'foo', with args beginning with: 'bar' ?$/)
    await check(['publish', 'only a channel'], /ERR wrong number of arguments for 'publish' command/)
    await check(['GET'], /ERR wrong number of arguments for 'get' command/)
    await check(['pubsub', 'dance'], /ERR unknown subcommand/i)
    await check(['auth', 'a word'], /ERR AUTH <password> called without any password configured for the default user/)
    await check(['auth', 'nobody', 'a word'], /WRONGPASS invalid username-password pair or user is disabled/)
    await check(['select', '99'], /ERR DB index is out of range/)
    await check(['cluster', 'info'], /ERR This instance has cluster support disabled/)
    await check(['hello', '4'], /NOPROTO unsupported protocol version/)
    assert.equal(await client.ping(), 'PONG')
  },

  async 'pings of the client keep it company'() {
    const client = await connect({ pingInterval: 10 })
    for (let pings = 0; pings < 3; pings++) assert.equal(await event(client, 'ping-interval'), 'PONG')
    assert.deepEqual(client.errors, [])
  },

  async 'quit is answered before the end'(here) {
    const [client] = await subscriber(here)
    const closed = event(client, 'end')
    // A buffer from a subscriber in RESP2.
    assert.equal(String(await within(client.quit(), 'quit')), 'OK')
    await closed
    assert.equal(client.isOpen, false)
    const witness = await connect()
    await until(() => witness.pubSubNumSub(here), (counts) => counts[here] === 0, 'it to be gone')
  },

  async 'who is cut off comes back with all subscriptions'(here) {
    const proxy = await proxyTo(address)
    try {
      const client = await connect({ socket: { ...hostAndPort(proxy.address), reconnectStrategy: () => 1 } })
      const heard = new Inbox()
      await client.subscribe([here, `${here}.b`], (message) => heard.push(`channel ${message}`))
      await client.pSubscribe(`p${here}*`, (message) => heard.push(`pattern ${message}`))
      await client.sSubscribe(`s${here}`, (message) => heard.push(`shard ${message}`))
      const publisher = await connect()
      for (let round = 0; round < 3; round++) {
        const ready = event(client, 'ready')
        proxy.cut()
        await ready
        // The connection that was cut may be the broker's for a moment longer.
        await until(() => publisher.pubSubNumSub(here), (counts) => counts[here] === 1, 'one of two')
        assert.equal(await publisher.publish(here, `${round}`), 1)
        assert.equal(await publisher.publish(`p${here}x`, `${round}`), 1)
        assert.equal(await publisher.sendCommand(['SPUBLISH', `s${here}`, `${round}`]), 1)
        assert.deepEqual((await heard.take(3)).sort(), [`channel ${round}`, `pattern ${round}`, `shard ${round}`])
      }
      destroy(client)
      open = open.filter((other) => other !== client)
    } finally {
      proxy.close()
    }
  },
}

await run(cases, () => {
  for (const client of open) if (client.isOpen) destroy(client)
  open = []
})
