// clusterws-client-js 3.3 with the broker in its server's place:
// `node clusterws.mjs TEXT_URL BINARY_URL [NATIVE_URL]`, the last for a native client that is the application behind
// the events. Prints a line per case; exits 1 if one failed.
//
// The broker is to be started with a ping interval well below a second, or the cases of the pings take long. Without
// the last URL, what is left holds for the original server too, if its application sends `myevent` back.

import assert from 'node:assert/strict'
import WebSocket from 'ws'
import { Inbox, run, within } from './cases.mjs'
import { proxyTo } from './proxy.mjs'

const [textUrl, binaryUrl, nativeUrl] = process.argv.slice(2)

// It is written for browsers.
globalThis.window = { WebSocket }
const { default: ClusterWS } = await import('clusterws-client-js')

/** Connections that are spread over the broker's shards, whichever they are. */
const MANY = 6

let ends = []

/** A client that is connected; `frames` has every frame as `[text, isBinary]`. */
async function connect(url, options = {}) {
  const client = new ClusterWS({ url, ...options })
  const frames = new Inbox()
  // The client makes its socket as it is made.
  client.websocket.on('message', (data, isBinary) => frames.push([Buffer.from(data).toString(), isBinary]))
  const ended = new Promise((resolve) => client.on('disconnect', (code, reason) => resolve([code, reason])))
  ends.push(() => client.websocket?.terminate())
  client.on('error', () => {})
  await within(new Promise((resolve) => client.on('connect', resolve)), 'connect')
  return { client, frames, ended }
}

/** A socket without a client library, past its configuration message. */
async function raw(url) {
  const socket = new WebSocket(url)
  const frames = new Inbox()
  socket.on('message', (data, isBinary) => {
    if (data.toString() !== '9') frames.push([data.toString(), isBinary])
  })
  ends.push(() => socket.terminate())
  const config = await frames.next()
  return { socket, frames, config }
}

let joins = 0

/**
 * Subscribes and waits until that is so: there are no acks, but who subscribed hears itself. What is heard is put into
 * the inbox, without these words of anybody.
 */
async function join(client, channel, inbox = new Inbox()) {
  const word = `joined ${++joins}`
  const joined = new Promise((resolve) => {
    client.subscribe(channel).watch((data) => {
      if (data === word) resolve()
      else if (!String(data).startsWith('joined ')) inbox.push(data)
    })
  })
  client.getChannelByName(channel).publish(word)
  await within(joined, `the echo of ${channel}`)
  return inbox
}

const casesOf = (mode, url) => ({
  async [`${mode}: the configuration comes first`]() {
    const { config } = await raw(url)
    const [text, isBinary] = config
    assert.match(text, /^\{"#":\["s","c",\{"ping":\d+,"binary":(true|false)\}\]\}$/)
    assert.equal(isBinary, mode === 'binary')
    assert.equal(JSON.parse(text)['#'][2].binary, mode === 'binary')
  },

  async [`${mode}: who subscribed hears what is published, by itself too`](here) {
    const [one, two] = [await connect(url), await connect(url)]
    const heard = [await join(one.client, here), await join(two.client, here)]
    one.client.getChannelByName(here).publish({ from: 'one' })
    two.client.getChannelByName(here).publish({ from: 'two' })
    for (const inbox of heard) {
      const both = await inbox.take(2)
      assert.deepEqual(both.map(({ from }) => from).sort(), ['one', 'two'])
    }
  },

  async [`${mode}: frames are of the announced kind, and to the letter`](here) {
    const { client, frames } = await connect(url)
    await join(client, here)
    client.getChannelByName(here).publish({ x: [1, 'two', null] })
    await join(client, `${here} after`)
    const seen = await frames.take(frames.length)
    const frame = seen.find(([text]) => text.includes('two'))
    assert.deepEqual(frame, [`{"#":["p","${here}",{"x":[1,"two",null]}]}`, mode === 'binary'])
  },

  async [`${mode}: who did not subscribe is not relayed`](here) {
    const [stranger, member] = [await raw(url), await connect(url)]
    const heard = await join(member.client, here)
    const say = (object) => stranger.socket.send(JSON.stringify(object))
    say({ '#': ['p', here, 'from a stranger'] })
    say({ '#': ['s', 's', here] })
    say({ '#': ['p', here, 'from a member'] })
    assert.equal(await heard.next(), 'from a member')
    assert.deepEqual(await stranger.frames.next(), [`{"#":["p","${here}","from a member"]}`, mode === 'binary'])
    assert.deepEqual([heard.length, stranger.frames.length], [0, 0])
  },

  async [`${mode}: an unsubscribe ends it`](here) {
    const [one, two] = [await connect(url), await connect(url)]
    const [heard] = [await join(one.client, here), await join(two.client, here)]
    one.client.getChannelByName(here).unsubscribe()
    await join(one.client, `${here} after`, heard)
    two.client.getChannelByName(here).publish('late')
    await join(two.client, `${here} after`)
    two.client.getChannelByName(`${here} after`).publish('after')
    assert.equal(await heard.next(), 'after')
    await join(one.client, here, heard)
    two.client.getChannelByName(here).publish('again')
    assert.equal(await heard.next(), 'again')
  },

  async [`${mode}: data is any JSON`](here) {
    const [one, two] = [await connect(url), await connect(url)]
    const heard = await join(two.client, here)
    await join(one.client, here)
    const texts = ['', 'text "quoted" \\ \n', 'x'.repeat(50_000)]
    const values = [null, true, 0, -1.5e-7, ...texts, [], {}, { a: { b: [1, [2, { c: 3 }]] } }]
    for (const value of values) one.client.getChannelByName(here).publish(value)
    one.client.getChannelByName(here).publish(undefined)
    for (const value of [...values, null]) assert.deepEqual(await heard.next(), value)
  },

  async [`${mode}: a thousand messages of each of two come in their order to everybody`](here) {
    const clients = await Promise.all(Array.from({ length: MANY }, () => connect(url)))
    const inboxes = await Promise.all(clients.map(({ client }) => join(client, here)))
    const numbers = Array.from({ length: 1000 }, (_, number) => number)
    for (const number of numbers) {
      for (const from of [0, 1]) clients[from].client.getChannelByName(here).publish([from, number])
    }
    for (const inbox of inboxes) {
      const heard = await inbox.take(2000)
      for (const from of [0, 1]) {
        assert.deepEqual(heard.filter((pair) => pair[0] === from).map((pair) => pair[1]), numbers)
      }
      assert.equal(inbox.length, 0)
    }
  },

  async [`${mode}: pings are binary, and who answers them stays`](here) {
    const { client, frames, ended } = await connect(url)
    ended.then((end) => frames.push([`disconnected ${end}`]))
    await frames.next()
    for (let pings = 0; pings < 4; pings++) assert.deepEqual(await frames.next(), ['9', true])
    const heard = await join(client, here)
    client.getChannelByName(here).publish('still here')
    assert.equal(await heard.next(), 'still here')
  },

  async [`${mode}: an event goes to the application, and one comes back`](here) {
    const { client } = await connect(url)
    const service = nativeUrl && (await application())
    const heard = new Inbox()
    client.on('myevent', (data) => heard.push(data))
    for (const value of [{ here, list: [1, 2] }, 'text', null, 7]) {
      client.send('myevent', value)
      if (service) {
        const { from, ...event } = await service.next()
        assert.deepEqual(event, { type: 'event', event: 'myevent', data: value })
        assert.match(from, /^client:/)
        service.send({ type: 'event', event: 'myevent', data: value, to: from })
      }
      assert.deepEqual(await heard.next(), value)
    }
  },

  async [`${mode}: nonsense ends nobody else`](here) {
    const [member, speaker] = [await connect(url), await raw(url)]
    const heard = await join(member.client, here)
    for (const nonsense of ['not json', '{"#":', '[]', '{}', '{"#":["x","y",1]}', '{"#":["s","x","y"]}']) {
      speaker.socket.send(nonsense)
    }
    speaker.socket.send(JSON.stringify({ '#': ['s', 's', here] }))
    speaker.socket.send(JSON.stringify({ '#': ['p', here, 'after all'] }))
    assert.equal(await heard.next(), 'after all', 'few mistakes are forgiven')
    for (let count = 0; count < 100; count++) speaker.socket.send('more of it')
    member.client.getChannelByName(here).publish('still here')
    assert.equal(await heard.next(), 'still here')
  },

  async [`${mode}: both kinds of frames are taken at any time`](here) {
    const { socket, frames } = await raw(url)
    const subscribe = JSON.stringify({ '#': ['s', 's', here] })
    const publish = JSON.stringify({ '#': ['p', here, 'x'] })
    for (const isBinary of [false, true]) {
      socket.send(subscribe, { binary: isBinary })
      socket.send(publish, { binary: isBinary })
      assert.deepEqual(await frames.next(), [`{"#":["p","${here}","x"]}`, mode === 'binary'])
    }
  },

  async [`${mode}: a client closes with its own code`]() {
    const { client, ended } = await connect(url)
    client.disconnect(4242, 'bye')
    const [code] = await within(ended, 'disconnect')
    assert.equal(code, 4242)
  },

  async [`${mode}: who is cut off comes back with its channels`](here) {
    const proxy = await proxyTo(new URL(url).host)
    const through = new URL(url)
    through.host = proxy.address
    const autoReconnectOptions = { minInterval: 1, maxInterval: 2 }
    const { client } = await connect(through.href, { autoReconnect: true, autoReconnectOptions })
    try {
      const heard = await join(client, here)
      await join(client, `${here} too`, heard)
      const publisher = await connect(url)
      for (const channel of [here, `${here} too`]) await join(publisher.client, channel)
      for (let round = 0; round < 3; round++) {
        const again = new Promise((resolve) => client.on('connect', resolve))
        proxy.cut()
        await within(again, 'connect')
        // What it said as it came back is behind us when it hears itself.
        const echo = new Inbox()
        await join(client, `${here} ${round}`, echo)
        for (const channel of [here, `${here} too`]) publisher.client.getChannelByName(channel).publish(round)
        assert.deepEqual(await heard.take(2), [round, round])
      }
      const ended = new Promise((resolve) => client.on('disconnect', resolve))
      client.disconnect()
      await within(ended, 'the end')
    } finally {
      proxy.close()
    }
  },
})

/** A native client that handles `myevent`, as an application that is not in the broker's process. */
async function application() {
  const socket = new WebSocket(nativeUrl)
  const said = new Inbox()
  socket.on('message', (data) => said.push(JSON.parse(data.toString())))
  ends.push(() => socket.terminate())
  await within(new Promise((resolve, reject) => socket.on('open', resolve).on('error', reject)), 'open')
  const send = (object) => socket.send(JSON.stringify(object))
  send({ type: 'handle', event: 'myevent' })
  const ack = await said.next()
  assert.deepEqual([ack.type, ack.action], ['ack', 'handle'], JSON.stringify(ack))
  return { send, next: () => said.next() }
}

/** What the original does not do: one server for both kinds of clients, and no letter lost. */
const ours = {
  async 'letters pass in every direction that a client leaves open'(here) {
    const channel = `é ${here}`
    const [text, binary] = [await connect(textUrl), await connect(binaryUrl)]
    const heard = [await join(text.client, channel), await join(binary.client, channel)]
    const check = async ({ client }, value) => {
      client.getChannelByName(channel).publish(value)
      for (const inbox of heard) assert.deepEqual(await inbox.next(), value)
    }
    await check(text, { t: 'é€😀\u2028\u0000', é: 'ключ' })
    // A binary client sends the low byte of each of its letters, and nothing else of them.
    await check(binary, { t: 'é ÿ', naïve: '½' })
    // UTF-8 in binary, as a client that does it right.
    const right = await raw(binaryUrl)
    for (const words of [['s', 's', channel], ['p', channel, 'é€😀']]) {
      right.socket.send(Buffer.from(JSON.stringify({ '#': words })))
    }
    for (const inbox of heard) assert.equal(await inbox.next(), 'é€😀')
    assert.equal(JSON.parse((await right.frames.next())[0])['#'][2], 'é€😀')
  },

  async 'channels may have any name'(here) {
    const [one, two] = [await connect(textUrl), await connect(textUrl)]
    const odd = [' ', 'toString', '__proto__x', '"quoted"\\', '\u0000', '€😀', 'x'.repeat(500)]
    for (const name of ['a.b', 'a.*', '=a', '$x', ...odd]) {
      const channel = name + here
      const heard = await join(one.client, channel)
      await join(two.client, channel)
      two.client.getChannelByName(channel).publish(channel)
      assert.equal(await heard.next(), channel)
    }
  },
}

const both = { ...casesOf('text', textUrl), ...casesOf('binary', binaryUrl) }
await run(nativeUrl ? { ...both, ...ours } : both, () => {
  for (const end of ends) end()
  ends = []
})
