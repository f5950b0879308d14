// A way to the broker that can be cut, as networks do it. How a client comes back is its own affair; that it can is the
// broker's.

import { once } from 'node:events'
import net from 'node:net'
import { hostAndPort } from './cases.mjs'

/** Listens on a port of its own and passes everything on to that address. */
export async function proxyTo(address) {
  const pairs = new Set()
  const server = net.createServer((near) => {
    const far = net.connect(hostAndPort(address))
    const pair = [near, far]
    pairs.add(pair)
    near.pipe(far).pipe(near)
    for (const socket of pair) {
      socket.on('error', () => {})
      socket.on('close', () => {
        pairs.delete(pair)
        pair.forEach((other) => other.destroy())
      })
    }
  })
  server.listen(0, '127.0.0.1')
  await once(server, 'listening')
  return {
    address: `127.0.0.1:${server.address().port}`,
    /** Ends every connection at once; new ones are let through. */
    cut() {
      for (const pair of pairs) pair.forEach((socket) => socket.resetAndDestroy())
    },
    close() {
      server.close()
      this.cut()
    },
  }
}
