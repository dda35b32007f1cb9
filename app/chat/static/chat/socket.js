/** A WebSocket that comes back by itself. Knows nothing of what is said over it but `ping`. */

import { Action, CloseCode, FINAL_CLOSE_CODES, FrameType } from "./protocol.js";

/** The longest wait before the first retry; it doubles with each failure, up to MAX_DELAY. All in ms. */
export const BASE_DELAY = 500;
export const MAX_DELAY = 20_000;

/** The longest wait once there is a sign that the network is back. */
export const HURRIED_DELAY = 500;

/** Silence after which the server is asked whether it is still there. */
export const SILENCE = 25_000;

/** Silence after that question which means that it is not. */
export const PONG_PATIENCE = 10_000;

/** Where the edge says whether it takes handshakes, and how long it may take to say so. */
export const HANDSHAKES = "/-/handshakes";
export const HANDSHAKES_PATIENCE = 3000;

/** What a socket needs of its surroundings; tests bring their own. */
export const browser = {
  openSocket: (url) => new WebSocket(url),
  fetch: (url, options) => fetch(url, options),
  setTimeout: (callback, milliseconds) => setTimeout(callback, milliseconds),
  clearTimeout: (timer) => clearTimeout(timer),
  now: () => Date.now(),
  random: () => Math.random(),
  /** Tells `online`. */
  window: globalThis,
  /** Tells `visibilitychange`, and has `visibilityState`. */
  document: globalThis.document,
};

/**
 * The wait before a retry: anything between nothing and a limit that grows ("full jitter"), so that
 * the clients of a worker that went away do not all come back in the same moment.
 */
export function retryDelay(failures, random) {
  return random() * Math.min(MAX_DELAY, BASE_DELAY * 2 ** failures);
}

/**
 * A handshake that an edge answers with 503 and Retry-After fails like any other: browsers show a
 * page neither the status nor the header. So after one that failed the edge is asked.
 */
export class ReconnectingSocket {
  #address;
  #handlers;
  #environment;
  /** The socket that is opening or open, null between two. */
  #socket = null;
  /** Whether the handshake of #socket succeeded. */
  #opened = false;
  /** Whether #socket has said anything yet. */
  #heard = false;
  /** Attempts since a server last said anything. */
  #failures = 0;
  /** Ends the question to the edge, null while there is none. */
  #question = null;
  #retryTimer = null;
  #retryAt = 0;
  /** Whether the wait is one that the edge asked for. */
  #refused = false;
  #livenessTimer = null;

  /**
   * @param {() => string} address where to connect to, asked before each attempt
   * @param {object} handlers
   * @param {(frame: object) => void} handlers.frame a frame came, other than a pong
   * @param {(state: object) => void} handlers.state {name: "connecting"}, {name: "connected"} with the
   *   first frame, {name: "waiting", milliseconds} before a retry, or {name: "stopped", code, reason}
   * @param {typeof browser} [environment]
   */
  constructor(address, handlers, environment = browser) {
    this.#address = address;
    this.#handlers = handlers;
    this.#environment = environment;
    environment.window.addEventListener("online", () => this.#hurry());
    environment.document.addEventListener("visibilitychange", () => {
      if (environment.document.visibilityState === "visible") {
        this.#hurry();
      }
    });
  }

  /** Connect now, unless that has been done. */
  connect() {
    if (this.#socket !== null) {
      return;
    }
    this.#cancelRetry();
    this.#handlers.state({ name: "connecting" });
    const socket = this.#environment.openSocket(this.#address());
    this.#socket = socket;
    this.#opened = false;
    this.#heard = false;
    socket.onopen = () => {
      this.#opened = true;
    };
    socket.onmessage = ({ data }) => this.#receive(JSON.parse(data));
    socket.onclose = ({ code, reason }) => this.#closed(code, reason);
    // From the start: an attempt into a dead network can hang for minutes.
    this.#listen();
  }

  /**
   * @param {object | Blob} frame an action, or a binary frame
   * @returns {boolean} whether there was a socket to send it on
   */
  send(frame) {
    if (this.#socket?.readyState !== 1) {
      return false;
    }
    this.#socket.send(frame instanceof Blob ? frame : JSON.stringify(frame));
    return true;
  }

  /** End the connection; connect() starts another. */
  close() {
    this.#cancelRetry();
    if (this.#socket !== null) {
      this.#abandon();
    }
  }

  #receive(frame) {
    this.#listen();
    if (!this.#heard) {
      // Only now, not when the socket opens: a server that accepts and then fails is a failure.
      this.#heard = true;
      this.#failures = 0;
      this.#handlers.state({ name: "connected" });
    }
    if (frame.type !== FrameType.PONG) {
      this.#handlers.frame(frame);
    }
  }

  #closed(code, reason) {
    this.#socket = null;
    this.#environment.clearTimeout(this.#livenessTimer);
    if (FINAL_CLOSE_CODES.has(code)) {
      const words = reason || FINAL_CLOSE_CODES.get(code);
      this.#handlers.state({ name: "stopped", code, reason: words });
      return;
    }
    if (code === CloseCode.LOST && !this.#opened) {
      this.#ask();
    } else {
      this.#retry();
    }
  }

  /** Ask the edge, once, whether it refuses handshakes; then wait. */
  async #ask() {
    const question = new AbortController();
    this.#question = question;
    this.#environment.setTimeout(() => question.abort(), HANDSHAKES_PATIENCE);
    let seconds = 0;
    try {
      const url = new URL(HANDSHAKES, this.#address().replace(/^ws/, "http"));
      const options = { cache: "no-store", credentials: "omit", signal: question.signal };
      const { status, headers } = await this.#environment.fetch(url.href, options);
      seconds = status === 503 ? Number(headers.get("Retry-After")) : 0;
    } catch {
      // Nobody answered, or too late: that says nothing of handshakes.
    }
    if (this.#question === question) {
      this.#question = null;
      this.#retry(seconds * 1000);
    }
  }

  /** @param {number} refusedFor how long the edge will refuse handshakes, 0 where it does not */
  #retry(refusedFor = 0) {
    const { random } = this.#environment;
    this.#refused = refusedFor > 0;
    const milliseconds = this.#refused
      ? // Full jitter again: many were told the same.
        refusedFor * (1 + random())
      : retryDelay(this.#failures, random);
    this.#failures += 1;
    this.#wait(milliseconds);
  }

  #wait(milliseconds) {
    this.#retryAt = this.#environment.now() + milliseconds;
    this.#retryTimer = this.#environment.setTimeout(() => this.connect(), milliseconds);
    this.#handlers.state({ name: "waiting", milliseconds });
  }

  #cancelRetry() {
    this.#question?.abort();
    this.#question = null;
    this.#environment.clearTimeout(this.#retryTimer);
    this.#retryTimer = null;
  }

  /** There may be a network again, or another one: do not wait to find out. */
  #hurry() {
    if (this.#retryTimer !== null) {
      if (this.#refused) {
        // The edge has said so: the network is not what this waits for.
        return;
      }
      this.#cancelRetry();
      const left = Math.max(0, this.#retryAt - this.#environment.now());
      this.#wait(Math.min(left, this.#environment.random() * HURRIED_DELAY));
    } else if (this.#socket !== null) {
      this.#probe();
    }
  }

  /** Something was heard: the silence starts anew. */
  #listen() {
    this.#environment.clearTimeout(this.#livenessTimer);
    this.#livenessTimer = this.#environment.setTimeout(() => this.#probe(), SILENCE);
  }

  /**
   * Find out whether anyone is at the other end. A phone that changes its network is told nothing:
   * its socket stays open, and nothing ever comes.
   */
  #probe() {
    const queued = this.#socket.bufferedAmount;
    this.send({ action: Action.PING });
    this.#environment.clearTimeout(this.#livenessTimer);
    this.#livenessTimer = this.#environment.setTimeout(() => {
      if (this.#socket.bufferedAmount < queued) {
        // The question is still behind an image, which is going out slowly.
        this.#probe();
        return;
      }
      this.#abandon();
      this.#closed(CloseCode.LOST, "");
    }, PONG_PATIENCE);
  }

  /** Let go of the socket at once; of a dead one a browser reports the end only after a minute. */
  #abandon() {
    const socket = this.#socket;
    this.#socket = null;
    this.#environment.clearTimeout(this.#livenessTimer);
    socket.onopen = null;
    socket.onmessage = null;
    socket.onclose = null;
    socket.close(CloseCode.NORMAL);
  }
}
