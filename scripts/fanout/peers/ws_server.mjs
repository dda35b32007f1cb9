// One process of a Node server: rooms over `ws`, joined with other processes by Redis.
//
// usage: node ws_server.mjs PORT REDIS_URL
import { createServer } from "node:http";

import { createClient } from "redis";
import { Sender, WebSocketServer } from "ws";

const [port, url] = process.argv.slice(2);
const publisher = await createClient({ url }).connect();
const subscriber = await createClient({ url }).connect();
const rooms = new Map();

// One frame for all members, as socket.io's adapter makes it.
const broadcast = (message, channel) => {
  const frame = Buffer.concat(
    Sender.frame(message, { fin: true, rsv1: false, opcode: 1, mask: false, readOnly: false }),
  );
  for (const socket of rooms.get(channel.toString()) ?? []) socket._sender.sendFrame([frame]);
};

const sockets = new WebSocketServer({ noServer: true, perMessageDeflate: false });
const server = createServer();
server.on("upgrade", (request, connection, head) => {
  sockets.handleUpgrade(request, connection, head, (socket) => {
    const room = request.url;
    if (!rooms.has(room)) {
      rooms.set(room, new Set());
      subscriber.subscribe(room, broadcast, true);
    }
    rooms.get(room).add(socket);
    socket.on("message", (message) => publisher.publish(room, message));
    socket.on("close", () => {
      rooms.get(room).delete(socket);
      if (rooms.get(room).size) return;
      rooms.delete(room);
      subscriber.unsubscribe(room);
    });
  });
});
server.listen(Number(port), "127.0.0.1", 4096);
