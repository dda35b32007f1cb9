/** The page of a room: joins its parts to a RoomConnection. */

import { showProblem, startComposer, stopComposer } from "./composer.js";
import { RoomConnection } from "./connection.js";
import { ConnectionLine } from "./connection_line.js";
import { socketUrl } from "./elements.js";
import { MessageLog } from "./message_log.js";
import { TypingLine, placePeople, showPeople } from "./people.js";
import { CloseCode } from "./protocol.js";

const page = document.querySelector("#main");
const earlier = document.querySelector("#earlier");
const login = document.querySelector("#login");
const { user } = page.dataset;

const connectionLine = new ConnectionLine(() => connection.connect());
const typingLine = new TypingLine();
const log = new MessageLog(user, tellRead);

const connection = new RoomConnection(socketUrl(page.dataset.socket), {
  messages(messages) {
    log.append(messages);
    for (const message of messages) {
      typingLine.ended(message.user);
    }
    if (messages.some((message) => message.user === user)) {
      // Whatever was wrong, they are heard again.
      showProblem("");
    }
    tellRead();
  },
  earlier(messages) {
    log.prepend(messages);
    showEarlier();
  },
  state(state) {
    connectionLine.show(state);
    showEarlier();
    if (state.name === "connected") {
      log.showWhetherEmpty();
      showProblem("");
    } else if (state.name === "stopped") {
      stopComposer();
      login.hidden = state.code !== CloseCode.LOGIN_REQUIRED;
      showProblem(login.hidden ? `${state.reason} Reload the page to try again.` : state.reason);
    }
  },
  pending: (texts) => log.showPending(texts),
  presence: (users) => showPeople(users, user),
  typing: (name) => typingLine.started(name),
  image: (sequence, image) => log.setImage(sequence, image),
  error({ error }) {
    showProblem(error);
    showEarlier();
  },
});

/** Tell how far the user has read: what they see, not what came. */
function tellRead() {
  if (document.visibilityState === "visible") {
    connection.read(log.seen);
  }
}

function showEarlier() {
  const focused = document.activeElement === earlier;
  earlier.disabled = false;
  earlier.hidden = !connection.hasEarlier;
  if (focused && earlier.hidden) {
    log.focus();
  }
}

earlier.addEventListener("click", () => {
  earlier.disabled = true;
  connection.earlier();
});
document.addEventListener("visibilitychange", tellRead);
// The browser may keep the page to show it again; a page that is kept must not seem to be there.
addEventListener("pagehide", () => connection.close());
addEventListener("pageshow", (event) => event.persisted && connection.connect());

placePeople();
startComposer(connection);
connection.connect();
