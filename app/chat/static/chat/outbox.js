/** What a user has said and the room has not yet repeated. */

import { Action } from "./protocol.js";

/** Milliseconds after which an unanswered message is sent again; the server stores it only once. */
export const ANSWER_PATIENCE = 5000;

/**
 * One message is on its way at a time, so that what a person says arrives in the order in which it
 * was typed, and a long outbox after an interruption does not become a flood.
 */
export class Outbox {
  #transmit;
  #changed;
  #environment;
  /** Texts by client_id, oldest first. */
  #texts = new Map();
  #open = false;
  /** Nothing is sent before this moment. */
  #pausedUntil = 0;
  /** Runs while the first message waits: for an answer, or for the end of a pause. */
  #timer = null;

  /**
   * @param {(action: object) => void} transmit send a frame, now
   * @param {(texts: string[]) => void} changed these wait, oldest first
   * @param {object} environment as of socket.js
   */
  constructor(transmit, changed, environment) {
    this.#transmit = transmit;
    this.#changed = changed;
    this.#environment = environment;
  }

  /** Keep a text until it is removed, and send it when those before it are gone. */
  add(text) {
    this.#texts.set(newClientId(), text);
    this.#tell();
    if (this.#timer === null) {
      this.#sendFirst();
    }
  }

  /** The message has come back, or will never be accepted. Other people's are ignored. */
  remove(clientId) {
    const [first] = this.#texts.keys();
    if (!this.#texts.delete(clientId)) {
      return;
    }
    this.#tell();
    if (clientId === first) {
      this.#sendFirst();
    }
  }

  /** There is a connection: whatever was on its way may be lost, so it is sent again. */
  open() {
    this.#open = true;
    this.#sendFirst();
  }

  /** The connection is gone. */
  shut() {
    this.#open = false;
    this.#cancel();
  }

  /** Send nothing for a while. */
  pause(milliseconds) {
    this.#pausedUntil = this.#environment.now() + milliseconds;
    this.#sendFirst();
  }

  #sendFirst() {
    this.#cancel();
    if (!this.#open || this.#texts.size === 0) {
      return;
    }
    const pause = this.#pausedUntil - this.#environment.now();
    if (pause <= 0) {
      const [[clientId, message]] = this.#texts;
      this.#transmit({ action: Action.SEND, message, client_id: clientId });
    }
    const wait = pause > 0 ? pause : ANSWER_PATIENCE;
    this.#timer = this.#environment.setTimeout(() => this.#sendFirst(), wait);
  }

  #cancel() {
    this.#environment.clearTimeout(this.#timer);
    this.#timer = null;
  }

  #tell() {
    this.#changed([...this.#texts.values()]);
  }
}

/** Not crypto.randomUUID(), which a page has only over TLS or on localhost. */
function newClientId() {
  const bytes = crypto.getRandomValues(new Uint8Array(16));
  return Array.from(bytes, (byte) => byte.toString(16).padStart(2, "0")).join("");
}
