// One process of a Socket.IO server, joined with other processes by its Redis adapter.
//
// usage: node socketio_server.mjs PORT REDIS_URL
import { createServer } from "node:http";

import { createAdapter } from "@socket.io/redis-adapter";
import { createClient } from "redis";
import { Server } from "socket.io";

const [port, url] = process.argv.slice(2);
const publisher = await createClient({ url }).connect();
const subscriber = await createClient({ url }).connect();
const server = createServer();
const io = new Server(server, {
  adapter: createAdapter(publisher, subscriber),
  transports: ["websocket"],
  serveClient: false,
});
io.on("connection", (socket) => {
  const room = socket.handshake.query.room;
  socket.join(room);
  socket.on("m", (message) => io.to(room).emit("m", message));
});
server.listen(Number(port), "127.0.0.1", 4096);
