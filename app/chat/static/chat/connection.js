/**
 * The client's half of chat/protocol.py: one room over a WebSocket that comes back after every
 * interruption without losing or repeating a message. Knows nothing of the page.
 */

/** The longest wait before the first retry; it doubles with each failure, up to MAX_DELAY. */
const BASE_DELAY = 500;
const MAX_DELAY = 20_000;

/** Close codes after which another attempt would meet the same answer. */
const FINAL = new Map([
  [1000, "The server has ended this conversation."],
  [4001, "You are not logged in."],
  [4004, "This room does not exist."],
]);

/**
 * The wait before a retry: anything between nothing and a limit that grows ("full jitter"), so that
 * the clients of a worker that went away do not all come back in the same moment.
 */
export function retryDelay(failures, random = Math.random) {
  return random() * Math.min(MAX_DELAY, BASE_DELAY * 2 ** failures);
}

export class RoomConnection {
  #url;
  #handlers;
  #openSocket;
  #random;
  #socket = null;
  /** Attempts since the last history frame. */
  #failures = 0;
  /** Every message up to this number is known; null before the first history frame. */
  #known = null;
  /**
   * Numbers seen above #known. Two messages sent at once through different workers can arrive in
   * either order, so "not above the highest number seen" would not mean "seen".
   */
  #ahead = new Set();

  /**
   * @param {string} url the room's socket, ws: or wss:, without a query
   * @param {object} handlers
   * @param {(messages: object[]) => void} handlers.messages new messages, each number once
   * @param {(state: object) => void} handlers.state {name: "connecting"}, {name: "connected", worker},
   *   {name: "waiting", milliseconds} before a retry, or {name: "stopped", code, reason}
   * @param {(error: {code: string, error: string}) => void} handlers.error a frame was refused
   * @param {object} [options] replacements for tests
   * @param {(url: string) => WebSocket} [options.openSocket]
   * @param {() => number} [options.random] from 0 up to 1
   */
  constructor(url, handlers, { openSocket = (to) => new WebSocket(to), random = Math.random } = {}) {
    this.#url = url;
    this.#handlers = handlers;
    this.#openSocket = openSocket;
    this.#random = random;
  }

  /** Open the socket, now. */
  connect() {
    this.#handlers.state({ name: "connecting" });
    const url = this.#known === null ? this.#url : `${this.#url}?after=${this.#known}`;
    const socket = this.#openSocket(url);
    this.#socket = socket;
    socket.onmessage = (event) => this.#receive(JSON.parse(event.data));
    socket.onclose = (event) => this.#closed(event);
  }

  /**
   * Say something to the room; it comes back as a message like everyone's.
   * @returns {boolean} whether there was a connection to say it on
   */
  send(message) {
    if (this.#socket?.readyState !== 1) {
      return false;
    }
    this.#socket.send(JSON.stringify({ action: "send", message }));
    return true;
  }

  #receive(frame) {
    if (frame.type === "history") {
      // Only now, not when the socket opens: a server that accepts and then fails is a failure.
      this.#failures = 0;
      const messages = frame.messages.filter((message) => this.#isNew(message));
      this.#known = frame.sequence;
      this.#advance();
      this.#handlers.messages(messages);
      this.#handlers.state({ name: "connected", worker: frame.worker });
    } else if (frame.type === "message") {
      if (this.#isNew(frame)) {
        this.#ahead.add(frame.sequence);
        this.#advance();
        this.#handlers.messages([frame]);
      }
    } else if (frame.type === "error") {
      this.#handlers.error(frame);
    }
  }

  #isNew({ sequence }) {
    return (this.#known === null || sequence > this.#known) && !this.#ahead.has(sequence);
  }

  /** Move #known over the numbers that follow it without a gap. */
  #advance() {
    while (this.#ahead.delete(this.#known + 1)) {
      this.#known += 1;
    }
    for (const sequence of this.#ahead) {
      if (sequence <= this.#known) {
        this.#ahead.delete(sequence);
      }
    }
  }

  #closed({ code, reason }) {
    this.#socket = null;
    if (FINAL.has(code)) {
      this.#handlers.state({ name: "stopped", code, reason: reason || FINAL.get(code) });
      return;
    }
    const milliseconds = retryDelay(this.#failures, this.#random);
    this.#failures += 1;
    setTimeout(() => this.connect(), milliseconds);
    this.#handlers.state({ name: "waiting", milliseconds });
  }
}
