// What the programs of this folder share: cases that run one after the other, and events that are waited for.

export const DEADLINE_MS = 10_000

/** The promise, or an error that says what did not come. */
export function within(promise, what) {
  let timer
  const late = new Promise((_, reject) => {
    timer = setTimeout(() => reject(new Error(`waited ${DEADLINE_MS} ms for ${what}`)), DEADLINE_MS)
  })
  return Promise.race([promise, late]).finally(() => clearTimeout(timer))
}

/** The next such event of an emitter; its only argument, or all of them. */
export function event(emitter, name) {
  const happens = new Promise((resolve) => {
    emitter.once(name, (...values) => resolve(values.length > 1 ? values : values[0]))
  })
  return within(happens, `the event ${name}`)
}

/** Asks until the answer satisfies. Each question should cost a round trip, which paces the loop. */
export async function until(question, satisfies, what) {
  const deadline = Date.now() + DEADLINE_MS
  for (;;) {
    const answer = await within(question(), what)
    if (satisfies(answer)) return answer
    if (Date.now() > deadline) throw new Error(`waited ${DEADLINE_MS} ms for ${what}; last: ${JSON.stringify(answer)}`)
  }
}

/** The two parts of `HOST:PORT` or `[HOST]:PORT`. */
export function hostAndPort(address) {
  const colon = address.lastIndexOf(':')
  return { host: address.slice(0, colon).replace(/[[\]]/g, ''), port: Number(address.slice(colon + 1)) }
}

/** What came, in order, to be waited for. */
export class Inbox {
  #items = []
  #wake = () => {}

  push(item) {
    this.#items.push(item)
    this.#wake()
  }

  /** What has come and was not taken. */
  get length() {
    return this.#items.length
  }

  /** The next item. */
  async next() {
    while (this.#items.length === 0) {
      await within(new Promise((resolve) => (this.#wake = resolve)), 'a message')
    }
    return this.#items.shift()
  }

  /** The next so many items. */
  async take(count) {
    const taken = []
    while (taken.length < count) taken.push(await this.next())
    return taken
  }
}

/**
 * Runs the cases in turn, each with a word of its own (for names that no other case uses) and followed by `clean`.
 * Prints a line for each; the process exits 1 if one failed.
 */
export async function run(cases, clean = () => {}) {
  const names = Object.keys(cases)
  let failed = 0
  for (const [index, name] of names.entries()) {
    try {
      await cases[name](`case${index}`)
      console.log(`ok ${name}`)
    } catch (error) {
      failed += 1
      console.log(`FAILED ${name}\n${error.stack}`)
    }
    await clean()
  }
  console.log(`${names.length - failed} of ${names.length} cases`)
  process.exitCode = failed === 0 ? 0 : 1
}
