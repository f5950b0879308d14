// Three Socket.IO servers that reach each other through the broker in Redis' place:
// `node socketio_adapters.mjs ADAPTER PACKAGE HOST:PORT`, ADAPTER being `plain` or, with `createShardedAdapter`, a
// subscription mode (`static`, `dynamic`, `dynamic-private`). Prints a line per case; exits 1 if one failed.
//
// Everything holds for a real Redis 7 as well.

import assert from 'node:assert/strict'
import { once } from 'node:events'
import http from 'node:http'
import { setImmediate as turn } from 'node:timers/promises'
import { createAdapter, createShardedAdapter } from '@socket.io/redis-adapter'
import { Emitter } from '@socket.io/redis-emitter'
import { Server } from 'socket.io'
import { io as connectTo } from 'socket.io-client'
import { DEADLINE_MS, event, hostAndPort, Inbox, run, until, within } from './cases.mjs'

const [adapterName, packageName, address] = process.argv.slice(2)
const isPlain = adapterName === 'plain'
const target = hostAndPort(address)

const SERVERS = 3

/** A ready Redis client of the package, and how it says any command. */
const packages = {
  async redis3({ createClient }) {
    const client = createClient(target)
    await event(client, 'ready')
    const say = (...words) =>
      new Promise((resolve, reject) => {
        client.send_command(words[0], words.slice(1), (error, reply) => (error ? reject(error) : resolve(reply)))
      })
    return { client, say, end: () => client.quit() }
  },
  redis4: nodeRedis,
  redis5: nodeRedis,
  redis6: nodeRedis,
  ioredis5: ioredis,
  ioredis6: ioredis,
}

async function nodeRedis({ createClient }) {
  const client = createClient({ socket: { ...target, reconnectStrategy: false } })
  client.on('error', (error) => console.log(`error of a Redis client: ${error.message}`))
  await within(client.connect(), 'ready')
  // Orderly, since an adapter that closes does not wait for its last commands.
  const end = () => (client.close ? client.close() : client.quit())
  return { client, say: (...words) => client.sendCommand(words), end }
}

async function ioredis({ Redis }) {
  const client = new Redis({ ...target, retryStrategy: null, disconnectTimeout: 100 })
  client.on('error', (error) => console.log(`error of a Redis client: ${error.message}`))
  await event(client, 'ready')
  return { client, say: (...words) => client.call(...words), end: () => client.quit() }
}

const Package = await import(packageName)
const redisClient = () => packages[packageName](Package)

/** A Socket.IO server whose adapter has a pair of clients of its own. */
async function startServer() {
  const [pub, sub] = [await redisClient(), await redisClient()]
  const create = isPlain ? createAdapter : createShardedAdapter
  const options = isPlain ? {} : { subscriptionMode: adapterName }
  const server = http.createServer()
  server.listen(0, '127.0.0.1')
  await once(server, 'listening')
  const io = new Server(server, { adapter: create(pub.client, sub.client, options) })
  io.of('/admin')
  const url = `http://127.0.0.1:${server.address().port}`
  return { io, url, say: pub.say, end: async () => (await io.close(), await pub.end(), await sub.end()) }
}

const servers = []
for (let count = 0; count < SERVERS; count++) servers.push(await startServer())
const [one, two, three] = servers.map(({ io }) => io)
const everyServer = [one, two, three]
const emitterClient = await redisClient()
const emitter = new Emitter(emitterClient.client)

/** Adapters do not say when they have subscribed; they count each other. */
async function allServersMeet(count = SERVERS) {
  for (const { io } of servers.slice(0, count)) {
    for (const namespace of ['/', '/admin']) {
      const { adapter } = io.of(namespace)
      await until(() => adapter.serverCount(), (found) => found === count, `${count} servers in ${namespace}`)
    }
  }
}

let sockets = []

/** A client of this server, with its side there, and what it hears as `[event, ...arguments]`. */
async function connect(index, namespace = '/') {
  const { io, url } = servers[index]
  const arrival = event(io.of(namespace), 'connection')
  const client = connectTo(url + namespace, { transports: ['websocket'], forceNew: true, reconnection: false })
  sockets.push(client)
  const heard = new Inbox()
  client.onAny((...words) => {
    if (typeof words.at(-1) !== 'function') heard.push(words)
  })
  const socket = await arrival
  if (!client.connected) await event(client, 'connect')
  return { client, socket, heard }
}

/** A client on each server. */
const connectAll = () => Promise.all(servers.map((_, index) => connect(index)))

/** In dynamic modes a room is a channel, which takes a moment to be subscribed to by that many servers. */
async function roomIsKnown(room, count) {
  if (!adapterName.startsWith('dynamic')) return
  const asked = async () => (await servers[0].say('PUBSUB', 'SHARDNUMSUB', `socket.io#/#${room}#`))[1]
  await until(asked, (found) => Number(found) === count, `${count} servers for ${room}`)
}

/** What each of these hears up to a last word that everybody is sent, by the way that those before it came. */
async function heardBy(clients, sender = one) {
  sender.emit('end')
  return Promise.all(
    clients.map(async ({ heard }) => {
      const words = []
      for (;;) {
        const next = await heard.next()
        if (next[0] === 'end') return words
        words.push(next)
      }
    })
  )
}

const cases = {
  async 'servers count each other'() {
    await allServersMeet()
  },

  async 'a broadcast reaches every client of every server once'() {
    const clients = await connectAll()
    one.emit('hello', 1, { two: [3] }, 'é😀')
    for (const words of await heardBy(clients)) assert.deepEqual(words, [['hello', 1, { two: [3] }, 'é😀']])
    clients[1].socket.broadcast.emit('from two')
    const [first, second, third] = await heardBy(clients, two)
    assert.deepEqual([first, second, third], [[['from two']], [], [['from two']]])
    two.local.emit('local')
    assert.deepEqual(await heardBy(clients, two), [[], [['local']], []])
  },

  async 'bytes stay bytes'() {
    const clients = await connectAll()
    const bytes = Buffer.from(Array.from({ length: 256 }, (_, byte) => byte))
    one.emit('bytes', bytes, { nested: [bytes] })
    const big = Buffer.alloc(200_000, 0xfe)
    one.emit('big', big)
    const expected = [['bytes', bytes, { nested: [bytes] }], ['big', big]]
    for (const words of await heardBy(clients)) assert.deepEqual(words, expected)
  },

  async 'rooms, several of them, and exceptions'(here) {
    const clients = await connectAll()
    const [a, b] = [`${here} a`, `${here}#é`]
    await clients[0].socket.join(a)
    await clients[1].socket.join([a, b])
    await clients[2].socket.join(b)
    await roomIsKnown(a, 2)
    await roomIsKnown(b, 2)
    one.to(a).emit('to a')
    one.to(b).emit('to b')
    one.to(a).to(b).emit('to both')
    one.except(b).emit('not b')
    one.to(a).except(b).emit('a, not b')
    one.to('nobody').emit('to nobody')
    assert.deepEqual(await heardBy(clients), [
      [['to a'], ['to both'], ['not b'], ['a, not b']],
      [['to a'], ['to b'], ['to both']],
      [['to b'], ['to both']],
    ])
    // A socket's own id is a room, wherever it is.
    for (const { socket } of clients) one.to(socket.id).emit('you', socket.id)
    const own = await heardBy(clients)
    clients.forEach(({ socket }, index) => assert.deepEqual(own[index], [['you', socket.id]]))
    await clients[1].socket.leave(a)
    await roomIsKnown(a, 1)
    one.to(a).emit('to a')
    assert.deepEqual(await heardBy(clients), [[['to a']], [], []])
  },

  async 'five hundred messages come in their order'(here) {
    const clients = await connectAll()
    for (const { socket } of clients) await socket.join(here)
    await roomIsKnown(here, SERVERS)
    for (let number = 0; number < 500; number++) two.to(here).emit('number', number)
    const expected = Array.from({ length: 500 }, (_, number) => ['number', number])
    for (const words of await heardBy(clients, two)) assert.deepEqual(words, expected)
  },

  async 'fetchSockets finds all, with their rooms and data'(here) {
    const clients = await connectAll()
    for (const [index, { socket }] of clients.entries()) {
      socket.data.index = index
      if (index > 0) await socket.join(here)
    }
    for (const io of everyServer) {
      const found = await within(io.in(here).fetchSockets(), 'fetchSockets')
      assert.deepEqual(found.map(({ data }) => data.index).sort(), [1, 2])
      assert.ok(found.every(({ rooms, id }) => rooms.has(here) && rooms.has(id)))
      assert.equal((await within(io.fetchSockets(), 'fetchSockets')).length, SERVERS)
    }
  },

  async 'sockets are made to join, leave and go'(here) {
    const clients = await connectAll()
    one.socketsJoin(here)
    const inRoom = async () => (await one.in(here).fetchSockets()).length
    await until(inRoom, (count) => count === SERVERS, 'all in the room')
    await roomIsKnown(here, SERVERS)
    one.to(here).emit('in')
    assert.deepEqual(await heardBy(clients), [[['in']], [['in']], [['in']]])
    one.in(clients[2].socket.id).socketsLeave(here)
    await until(inRoom, (count) => count === SERVERS - 1, 'one left')
    await roomIsKnown(here, SERVERS - 1)
    one.to(here).emit('still in')
    assert.deepEqual(await heardBy(clients), [[['still in']], [['still in']], []])
    const gone = event(clients[1].client, 'disconnect')
    one.in(clients[1].socket.id).disconnectSockets(true)
    await gone
    assert.equal(clients[0].client.connected && clients[2].client.connected, true)
    const away = [clients[0], clients[2]].map(({ client }) => event(client, 'disconnect'))
    one.disconnectSockets()
    await Promise.all(away)
  },

  async 'servers speak to each other'() {
    const said = new Inbox()
    everyServer.forEach((io, index) => io.on('ping', (...words) => said.push([index, ...words])))
    one.serverSideEmit('ping', 'a', { b: 1 })
    const taken = (await said.take(SERVERS - 1)).sort()
    assert.deepEqual(taken, [[1, 'a', { b: 1 }], [2, 'a', { b: 1 }]])
    everyServer.forEach((io, index) => io.on('ask', (word, answer) => answer(`${word} ${index}`)))
    for (const [index, io] of everyServer.entries()) {
      const answers = await within(io.serverSideEmitWithAck('ask', 'who'), 'the answers')
      const others = [0, 1, 2].filter((other) => other !== index)
      assert.deepEqual(answers.sort(), others.map((other) => `who ${other}`))
    }
    for (const io of everyServer) {
      io.removeAllListeners('ping')
      io.removeAllListeners('ask')
    }
    assert.equal(said.length, 0)
  },

  async 'a broadcast is acked by every client'(here) {
    const clients = await connectAll()
    clients.forEach(({ client, socket }, index) => {
      socket.join(here)
      client.on('question', (word, answer) => answer(`${word} ${index}`))
    })
    for (const io of everyServer) {
      const answers = await within(io.timeout(DEADLINE_MS).emitWithAck('question', 'who'), 'the answers')
      assert.deepEqual(answers.sort(), ['who 0', 'who 1', 'who 2'])
    }
    const acked = new Promise((resolve) => {
      two.to(here).except(clients[1].socket.id).timeout(DEADLINE_MS).emit('question', 'bytes', (...all) => resolve(all))
    })
    const [error, answers] = await within(acked, 'the answers')
    assert.deepEqual([error, answers.sort()], [null, ['bytes 0', 'bytes 2']])
  },

  async 'a broadcast that one client does not ack times out'() {
    const clients = await connectAll()
    for (const { client } of clients.slice(0, 2)) client.on('question', (answer) => answer('here'))
    const acked = new Promise((resolve) => one.timeout(1000).emit('question', (...all) => resolve(all)))
    const [error, answers] = await within(acked, 'the timeout')
    assert.match(error.message, /timed out/)
    assert.deepEqual(answers, ['here', 'here'])
  },

  async 'namespaces do not hear each other'() {
    const [user, admin] = [await connect(0), await connect(1, '/admin')]
    one.of('/admin').emit('to admins')
    assert.deepEqual(await admin.heard.next(), ['to admins'])
    two.emit('to users')
    assert.deepEqual(await user.heard.next(), ['to users'])
    const found = await within(three.of('/admin').fetchSockets(), 'fetchSockets')
    assert.deepEqual(found.map(({ id }) => id), [admin.socket.id])
    assert.deepEqual([user.heard.length, admin.heard.length], [0, 0])
  },
}

/** What only the adapter does that the emitter was made for. */
const plainCases = {
  async 'an emitter reaches everybody, rooms, and all but some'(here) {
    const clients = await connectAll()
    await clients[0].socket.join(here)
    await clients[1].socket.join([here, `${here} b`])
    emitter.emit('all', Buffer.from([0, 255]))
    emitter.to(here).emit('room', 'é')
    emitter.to(here).except(`${here} b`).emit('some')
    emitter.to(clients[2].socket.id).emit('you')
    const bytes = Buffer.from([0, 255])
    assert.deepEqual(await heardBy(clients, emitter), [
      [['all', bytes], ['room', 'é'], ['some']],
      [['all', bytes], ['room', 'é']],
      [['all', bytes], ['you']],
    ])
  },

  async 'an emitter makes sockets join, leave and go, and speaks to servers'(here) {
    const clients = await connectAll()
    const inRoom = async () => (await one.in(here).fetchSockets()).length
    emitter.socketsJoin(here)
    await until(inRoom, (count) => count === SERVERS, 'all in the room')
    emitter.in(clients[0].socket.id).socketsLeave(here)
    await until(inRoom, (count) => count === SERVERS - 1, 'one left')
    const said = new Inbox()
    everyServer.forEach((io, index) => io.on('told', (word) => said.push([index, word])))
    emitter.serverSideEmit('told', 'x')
    assert.deepEqual((await said.take(SERVERS)).sort(), [[0, 'x'], [1, 'x'], [2, 'x']])
    const gone = clients.slice(1).map(({ client }) => event(client, 'disconnect'))
    emitter.in(here).disconnectSockets(true)
    await Promise.all(gone)
    assert.equal(clients[0].client.connected, true)
    const admin = await connect(2, '/admin')
    emitter.of('/admin').emit('to admins')
    assert.deepEqual(await admin.heard.next(), ['to admins'])
  },

  async 'all rooms of all servers'(here) {
    const clients = await connectAll()
    for (const [index, { socket }] of clients.entries()) await socket.join(`${here} ${index}`)
    const rooms = await within(two.of('/').adapter.allRooms(), 'allRooms')
    for (const index of clients.keys()) assert.ok(rooms.has(`${here} ${index}`))
  },
}

/** In this order, since fewer servers are left after it. */
const lastCase = {
  async 'a server that closes is counted no more'() {
    const { end } = servers.pop()
    await end()
    await allServersMeet(SERVERS - 1)
    await connect(0)
    const found = await within(two.fetchSockets(), 'fetchSockets')
    assert.equal(found.length, 1)
  },
}

const clean = async () => {
  for (const client of sockets) client.disconnect()
  sockets = []
  // Nobody of this case shall be found in the next.
  for (const { io } of servers) {
    for (const namespace of ['/', '/admin']) {
      const left = async () => (await turn(), io.of(namespace).sockets.size)
      await until(left, (size) => size === 0, 'the sockets to be gone')
    }
  }
}

await run({ ...cases, ...(isPlain && plainCases), ...lastCase }, clean)
for (const { end } of servers) await within(end(), 'the end of a server')
await emitterClient.end()
// Adapters keep a timer for each broadcast with acks, also when all have come.
process.exit()
