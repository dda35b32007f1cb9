/** What a browser gives to the modules under test, under the tests' control: nothing really waits. */

import { webcrypto } from "node:crypto";
import { RoomConnection } from "../../app/chat/static/chat/connection.js";

// A browser has it, and Node since 19.
globalThis.crypto ??= webcrypto;

/** The server's end of a socket that a client opened. */
class FakeSocket {
  readyState = 0;
  bufferedAmount = 0;
  sent = [];
  /** The code with which the client closed. */
  closedWith = null;

  constructor(url) {
    this.url = url;
  }

  /** As a client calls it. */
  send(data) {
    this.sent.push(typeof data === "string" ? JSON.parse(data) : data);
  }

  /** As a client calls it; a dead network never tells it the end. */
  close(code) {
    this.readyState = 2;
    this.closedWith = code;
  }

  open() {
    this.readyState = 1;
    this.onopen?.();
  }

  tell(frame) {
    this.open();
    this.onmessage?.({ data: JSON.stringify(frame) });
  }

  end(code, reason = "") {
    this.readyState = 3;
    this.onclose?.({ code, reason });
  }

  /** What the client sent of one action. */
  actions(name) {
    return this.sent.filter(({ action }) => action === name);
  }
}

export function response(status, headers = {}) {
  return Promise.resolve({ status, headers: new Headers(headers) });
}

/** Let everything go on whose promises are kept. */
export function settled() {
  return new Promise((resolve) => setImmediate(resolve));
}

export class Surroundings {
  sockets = [];
  /** What was asked over HTTP. */
  asked = [];
  /** The answer to it, as fetch() promises one. */
  answer = response(204);
  window = new EventTarget();
  document = Object.assign(new EventTarget(), { visibilityState: "visible" });
  /** What random() returns. */
  chance = 0.5;
  #now = 1_000_000;
  #timers = new Map();
  #lastTimer = 0;

  openSocket = (url) => {
    this.sockets.push(new FakeSocket(url));
    return this.sockets.at(-1);
  };
  /** As a browser's, it can be aborted. */
  fetch = (url, { signal, ...options }) => {
    this.asked.push({ url, ...options });
    return new Promise((resolve, reject) => {
      signal.addEventListener("abort", () => reject(signal.reason));
      this.answer.then(resolve, reject);
    });
  };
  random = () => this.chance;
  now = () => this.#now;
  setTimeout = (callback, milliseconds) => {
    this.#lastTimer += 1;
    this.#timers.set(this.#lastTimer, { callback, at: this.#now + milliseconds });
    return this.#lastTimer;
  };
  clearTimeout = (timer) => this.#timers.delete(timer);

  get socket() {
    return this.sockets.at(-1);
  }

  /** Let time go by; timers run in their order, each at its moment. */
  pass(milliseconds) {
    const end = this.#now + milliseconds;
    for (;;) {
      const due = [...this.#timers].filter(([, { at }]) => at <= end);
      if (due.length === 0) {
        break;
      }
      const [timer, { callback, at }] = due.sort(([, one], [, other]) => one.at - other.at)[0];
      this.#timers.delete(timer);
      this.#now = at;
      callback();
    }
    this.#now = end;
  }

  show(visibilityState) {
    this.document.visibilityState = visibilityState;
    this.document.dispatchEvent(new Event("visibilitychange"));
  }
}

export function message(sequence, more = {}) {
  return { sequence, room: "lobby", user: "ada", message: `number ${sequence}`, worker: "w1", ...more };
}

export function messages(from, to) {
  return Array.from({ length: to - from + 1 }, (_, index) => message(from + index));
}

/** A RoomConnection, and what it has told the page. */
export class Room {
  surroundings = new Surroundings();
  /** Numbers of messages; what else there is, as it came. */
  told = {
    messages: [],
    newest: null,
    earlier: [],
    state: [],
    pending: [],
    presence: [],
    typing: [],
    image: [],
    error: [],
  };

  constructor() {
    const { told } = this;
    this.connection = new RoomConnection(
      "ws://kit/ws/chat/lobby/",
      {
        messages: (list) => {
          told.messages.push(...list.map(({ sequence }) => sequence));
          told.newest = list.at(-1);
        },
        earlier: (list) => told.earlier.push(list.map(({ sequence }) => sequence)),
        state: (state) => told.state.push(state),
        pending: (texts) => told.pending.push(texts),
        presence: (users) => told.presence.push(users),
        typing: (user) => told.typing.push(user),
        image: (sequence, image) => told.image.push([sequence, image]),
        error: (error) => told.error.push(error),
      },
      this.surroundings,
    );
    this.connection.connect();
  }

  get socket() {
    return this.surroundings.socket;
  }

  get pending() {
    return this.told.pending.at(-1);
  }

  /** The first history of a socket. */
  join(list = [], sequence = list.at(-1)?.sequence ?? 0) {
    this.history(list, { sequence });
    return this;
  }

  history(list, more) {
    this.socket.tell({ type: "history", worker: "w1", messages: list, ...more });
  }

  /** Lose the socket, and wait until there is another. */
  reconnect() {
    this.socket.end(1006);
    this.surroundings.pass(1000);
  }

  say(sequence, more) {
    this.socket.tell({ type: "message", ...message(sequence, more) });
  }

  /** Tell the room what the client has just sent. */
  confirm(sequence, { message: text, client_id: clientId }) {
    this.say(sequence, { message: text, client_id: clientId });
  }
}
