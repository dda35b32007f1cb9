/** The messages of a room in the order of their numbers, whatever the order in which they come. */

/** Each method that takes messages returns those that are now due: in order, without gaps, once. */
export class Sequence {
  /** Every message up to this number has been returned; null before the first history. */
  #known = null;
  /** The highest number heard of. */
  #newest = 0;
  /** Messages above #known that wait for the ones before them, by number. */
  #held = new Map();

  get known() {
    return this.#known;
  }

  /** A new socket: the server will send whatever is above `known`. */
  restart() {
    this.#held.clear();
    this.#newest = 0;
  }

  /** A history that the server sent by itself; with it everything up to `upTo` is known. */
  start(messages, upTo) {
    const due = messages.filter(({ sequence }) => this.#known === null || sequence > this.#known);
    // The server's word counts even where it is lower: its database may have been restored.
    this.#known = upTo;
    this.notice(upTo);
    return due.concat(this.#advance());
  }

  /** A message that somebody just sent. */
  add(message) {
    this.#hold([message]);
    this.notice(message.sequence);
    return this.#known === null ? [] : this.#advance();
  }

  /** The answer to a request for `from` to `to`; the room's newest number was `newest` then. */
  fill({ messages, from, to, sequence: newest }) {
    this.#hold(messages);
    this.notice(newest);
    const due = [];
    if (from <= this.#known + 1) {
      // What the answer does not have does not exist, and nobody need wait for it.
      const end = Math.min(to, newest);
      while (this.#known < end) {
        this.#known += 1;
        if (this.#held.has(this.#known)) {
          due.push(this.#held.get(this.#known));
        }
      }
    }
    return due.concat(this.#advance());
  }

  /** The room has a message of this number. */
  notice(sequence) {
    this.#newest = Math.max(this.#newest, sequence);
  }

  /** Replace the image of a message that waits; false when there is none. */
  setImage(sequence, image) {
    const message = this.#held.get(sequence);
    if (message === undefined) {
      return false;
    }
    this.#held.set(sequence, { ...message, image });
    return true;
  }

  /** The first missing numbers, both included; or null. */
  gap() {
    if (this.#known === null || this.#newest <= this.#known) {
      return null;
    }
    const from = this.#known + 1;
    let to = this.#newest;
    for (const sequence of this.#held.keys()) {
      to = Math.min(to, sequence - 1);
    }
    return { from, to };
  }

  #hold(messages) {
    for (const message of messages) {
      this.#held.set(message.sequence, message);
    }
  }

  /** Move #known over the held messages that follow it without a gap, and let go of older ones. */
  #advance() {
    const due = [];
    while (this.#held.has(this.#known + 1)) {
      this.#known += 1;
      due.push(this.#held.get(this.#known));
    }
    for (const sequence of this.#held.keys()) {
      if (sequence <= this.#known) {
        this.#held.delete(sequence);
      }
    }
    return due;
  }
}
