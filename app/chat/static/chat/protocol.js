/** The browser's half of docs/protocol.md: names, close codes and limits, here and nowhere else. */

/** What a client asks for. */
export const Action = Object.freeze({
  SEND: "send",
  HISTORY: "history",
  TYPING: "typing",
  READ: "read",
  PING: "ping",
});

/** What a server tells in a room. */
export const FrameType = Object.freeze({
  HISTORY: "history",
  MESSAGE: "message",
  IMAGE: "image",
  PRESENCE: "presence",
  JOINED: "joined",
  LEFT: "left",
  TYPING: "typing",
  POSITION: "position",
  PONG: "pong",
  ERROR: "error",
});

/** What a server tells one user, on every page. */
export const NotificationType = Object.freeze({
  READY: "ready",
  ORDER_UPDATE: "order.update",
  PONG: "pong",
});

/** Why a frame was refused: the codes that mean something to this client. */
export const ErrorCode = Object.freeze({
  EMPTY_MESSAGE: "empty_message",
  MESSAGE_TOO_LONG: "message_too_long",
  INVALID_TEXT: "invalid_text",
  FLOOD: "flood",
  IMAGE_TOO_LARGE: "image_too_large",
  NOT_AN_IMAGE: "not_an_image",
});

export const CloseCode = Object.freeze({
  NORMAL: 1000,
  /** What a browser reports when a connection is gone without a close frame. */
  LOST: 1006,
  TOO_BIG: 1009,
  LOGIN_REQUIRED: 4001,
  UNKNOWN_ROOM: 4003,
  ABUSE: 4029,
});

/** The close codes after which another attempt would meet the same answer, and their words. */
export const FINAL_CLOSE_CODES = new Map([
  [CloseCode.NORMAL, "The server has ended this conversation."],
  [CloseCode.TOO_BIG, "A frame was larger than the server reads."],
  [CloseCode.LOGIN_REQUIRED, "You are not logged in."],
  [CloseCode.UNKNOWN_ROOM, "There is no such room, or you may not enter it."],
  [CloseCode.ABUSE, "Too many frames were sent too fast."],
]);

/** Characters (code points, as the server counts them) in one message. */
export const MESSAGE_MAX_LENGTH = 2000;

/** Messages that one `history` action may ask for. */
export const HISTORY_PAGE = 200;

/** Bytes in one image. */
export const IMAGE_MAX_BYTES = 2 * 1024 * 1024;

export const IMAGE_TYPES = Object.freeze(["image/png", "image/jpeg", "image/gif", "image/webp"]);

/** Milliseconds between two `typing` frames of a socket; more the server would not pass on. */
export const TYPING_INTERVAL = 2000;
