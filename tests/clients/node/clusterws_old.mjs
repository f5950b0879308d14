// ClusterWS clients of the generations that npm has no more, written anew from what they said on the wire, beside one
// that it has: `node clusterws_old.mjs URL`, to which each adds its `?v=`. Prints a line per case; exits 1 if one
// failed.
//
// The broker is to be started with a ping interval and a ping timeout of a second at most together, or the cases of the
// pings take long.

import assert from 'node:assert/strict'
import WebSocket from 'ws'
import { Inbox, run, within } from './cases.mjs'

const url = process.argv[2]

/** What an envelope's key is, what a ping is, and how it is asked for. */
const generations = {
  '0.1.0': { key: 'm', query: '?v=0', ping: ['#0', false], pong: '#1' },
  '1.0 to 2.2': { key: '#', query: '?v=1', ping: ['#0', false], pong: '#1' },
  '1.3 to 2.2 in binary': { key: '#', query: '?v=1&binary=1', ping: ['#0', true], pong: '#1', isBinary: true },
  '3.0 to 3.3': { key: '#', query: '', ping: ['9', true], pong: 'A' },
}

let open = []

/** A client as those of its time were: envelopes by its key, pings answered in kind, one listener for all. */
class Client {
  constructor({ key, query, ping, pong, isBinary = false }) {
    Object.assign(this, { key, isBinary, heard: new Inbox(), pings: new Inbox(), answersPings: true })
    this.socket = new WebSocket(url + query)
    this.closed = new Promise((resolve) => this.socket.on('close', resolve))
    this.opened = new Promise((resolve, reject) => this.socket.on('open', resolve).on('error', reject))
    this.socket.on('message', (data, isBinary) => {
      const text = data.toString()
      if (text === ping[0]) {
        this.pings.push([text, isBinary])
        if (this.answersPings) this.socket.send(pong, { binary: isBinary })
      } else if (text.startsWith('#')) this.heard.push(text)
      else this.heard.push(JSON.parse(text)[key])
    })
    open.push(this)
  }

  send(...words) {
    const text = JSON.stringify({ [this.key]: words })
    // In binary mode they sent a byte for each letter.
    this.socket.send(this.isBinary ? Buffer.from(text, 'latin1') : text)
  }

  /** Subscribes; who hears itself has subscribed. */
  async join(channel, word) {
    this.send('s', 's', channel)
    this.send('p', channel, word)
    for (;;) {
      const [type, name, data] = await this.heard.next()
      if (type === 'p' && name === channel && data === word) return
    }
  }
}

async function connect(generation) {
  const client = new Client(generation)
  await within(client.opened, 'open')
  client.config = await client.heard.next()
  return client
}

const casesOf = (name, generation) => ({
  async [`${name}: the configuration comes first, with the interval of the pings`]() {
    const { config } = await connect(generation)
    const [type, action, { ping, binary = false }] = config
    assert.deepEqual([type, action], ['s', 'c'])
    assert.ok(Number.isInteger(ping) && ping > 0, `${ping}`)
    assert.equal(binary, generation.isBinary ?? false)
  },

  async [`${name}: subscribe, publish, unsubscribe`](here) {
    const [one, two] = [await connect(generation), await connect(generation)]
    await one.join(here, 'first')
    await two.join(here, 'second')
    assert.deepEqual(await one.heard.next(), ['p', here, 'second'])
    one.send('p', here, { x: 'é' })
    for (const client of [one, two]) assert.deepEqual(await client.heard.next(), ['p', here, { x: 'é' }])
    two.send('s', 'u', here)
    await two.join(`${here} after`, 'third')
    one.send('p', here, 'nobody but me')
    assert.deepEqual(await one.heard.next(), ['p', here, 'nobody but me'])
    await two.join(`${here} after`, 'fourth')
    assert.equal(two.heard.length, 0)
  },

  async [`${name}: pings are answered in kind, and keep the connection`](here) {
    const client = await connect(generation)
    for (let count = 0; count < 3; count++) assert.deepEqual(await client.pings.next(), generation.ping)
    await client.join(here, 'still here')
  },
})

const together = {
  async 'all generations meet in a channel'(here) {
    const clients = []
    for (const generation of Object.values(generations)) {
      // Twice, so that some are likely to live on another shard.
      for (let count = 0; count < 2; count++) clients.push(await connect(generation))
    }
    for (const [index, client] of clients.entries()) {
      await client.join(here, `joined ${index}`)
      for (const earlier of clients.slice(0, index)) await earlier.heard.next()
    }
    for (const [index, speaker] of clients.entries()) {
      const data = { index, text: speaker.isBinary ? 'é' : 'é€😀' }
      speaker.send('p', here, data)
      for (const client of clients) assert.deepEqual(await client.heard.next(), ['p', here, data])
    }
  },

  async 'a key of another generation is not understood, and harms nobody'(here) {
    const [client, witness] = [await connect(generations['0.1.0']), await connect(generations['3.0 to 3.3'])]
    await witness.join(here, 'first')
    client.socket.send(JSON.stringify({ '#': ['p', here, 'wrong key'] }))
    await client.join(here, 'right key')
    assert.deepEqual(await witness.heard.next(), ['p', here, 'right key'])
  },

  async 'who answers no ping and says nothing is closed, who speaks stays'(here) {
    for (const generation of Object.values(generations)) {
      const [silent, speaker] = [await connect(generation), await connect(generation)]
      silent.answersPings = speaker.answersPings = false
      let isClosed = false
      silent.closed.then(() => (isClosed = true))
      for (let count = 0; !isClosed; count++) {
        await speaker.pings.next()
        await speaker.join(here, count)
      }
      await speaker.join(here, 'still here')
    }
  },

  async 'a client that pings is answered'() {
    const client = await connect(generations['1.0 to 2.2'])
    client.socket.send('#4')
    assert.equal(await client.heard.next(), '#3')
  },
}

let cases = {}
for (const [name, generation] of Object.entries(generations)) Object.assign(cases, casesOf(name, generation))
await run({ ...cases, ...together }, () => {
  for (const client of open) client.socket.terminate()
  open = []
})
