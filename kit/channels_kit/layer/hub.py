"""A layer in one event loop: its mailboxes, its groups, and what it hears of every Redis."""

from __future__ import annotations

import asyncio
import math
import time
from collections.abc import Callable, Coroutine, Mapping
from dataclasses import dataclass, field
from secrets import token_bytes, token_hex
from typing import TYPE_CHECKING, Any

from channels.exceptions import ChannelFull  # type: ignore[import-untyped]
from redis.exceptions import ResponseError

from channels_kit.layer import codec, scripts
from channels_kit.layer.codec import Cipher, CodecError, Entry
from channels_kit.layer.connection import Backoff
from channels_kit.layer.errors import ConsumerOverflowError, LayerUnavailableError
from channels_kit.layer.frames import frame_of
from channels_kit.layer.gatherer import Gatherer
from channels_kit.layer.mailbox import GAP, Letter, Mailbox
from channels_kit.layer.options import Options
from channels_kit.layer.outlet import Outlet, Room
from channels_kit.layer.shard import Shard, shard_number
from channels_kit.layer.statistics import Backlog, Statistics
from channels_kit.layer.topic import Topic

if TYPE_CHECKING:
    from channels_kit.layer.bridge import Bridge

IDLE_TURNS = 4
"""Turns of the event loop in which no receiver takes anything, after which reading goes on."""

SWEEP_SECONDS = 5.0
"""Seconds between two looks for channels that nobody receives from, and memberships that expire."""


@dataclass(eq=False)
class Group:
    """A group with members in this event loop.

    Attributes:
        name: its name.
        joining: opens its topic, and ends when Redis has confirmed the subscription.
        topic: what is known of it; None until its position is.
        confirmed: whether Redis has confirmed the first subscription.
        members: their mailboxes.
        plain: those of them that get events alone.
        room: those that get frames.
    """

    name: str
    joining: asyncio.Task[None] | None = None
    topic: Topic | None = None
    confirmed: asyncio.Event = field(default_factory=asyncio.Event)
    members: set[Mailbox] = field(default_factory=set)
    plain: set[Mailbox] = field(default_factory=set)
    room: Room = field(default_factory=Room)


class Hub:
    """All that one event loop has of a layer.

    Args:
        options: of the layer.
        cipher: of the layer.
        capacity: returns the capacity of a channel.
        statistics: of the process.
        stock: configuration of the other layer, if there is a bridge to one.
    """

    def __init__(
        self,
        options: Options,
        cipher: Cipher,
        capacity: Callable[[str], int],
        statistics: Statistics,
        stock: Mapping[str, Any] | None,
    ) -> None:
        self.options = options
        self.cipher = cipher
        self.capacity = capacity
        self.statistics = statistics
        self.loop = asyncio.get_running_loop()
        identity = token_bytes(8)
        self.name = identity.hex()
        self.mailboxes: dict[str, Mailbox] = {}
        self.groups: dict[str, Group] = {}
        self.shards = [
            Shard(
                *(host, options, identity, self._deliver, self._confirmed, self._missed),
                *(self._woken, self._turn, statistics),
            )
            for host in options.hosts
        ]
        self.gatherer = Gatherer(options.socket_buffer, statistics)
        # Messages in all mailboxes, and those that were taken out of them: whether that goes on.
        self._waiting = 0
        self._taken = 0
        # The mailbox that is more than half full since the last turn of the receivers, if one is.
        self._crowded: Mailbox | None = None
        # Its own topic, for messages to single channels; None before the first one.
        self._inbox: Topic | None = None
        # Named channels that are received from here.
        self._queues: dict[str, _Queue] = {}
        self._sweeping: asyncio.Task[None] | None = None
        # What another event loop has been asked for and has not confirmed.
        self._asked: dict[str, asyncio.Future[None]] = {}
        self._tasks: set[asyncio.Task[Any]] = set()
        self._bridge: Bridge | None = None
        if stock:
            # Not at the beginning: `python -m channels_kit.layer.bridge` runs the module itself.
            from channels_kit.layer.bridge import Bridge

            self._bridge = Bridge(self.shards[0], self, options.prefix, stock)

    async def close(self) -> None:
        """Close all connections and forget all channels."""
        if self._bridge:
            await self._bridge.close()
        tasks = list(self._tasks)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        for shard in self.shards:
            await shard.close()
        self.mailboxes.clear()
        self.groups.clear()

    async def delete_everything(self) -> None:
        """Delete what Redis has of the layer, but its epoch."""
        for shard in self.shards:
            await shard.delete_keys(f"{self.options.prefix}:fanout:")

    # Channels

    def new_channel(self, prefix: str) -> str:
        """Return the name of a channel that is received from here."""
        self._open_inbox()
        name = f"{prefix}.{self.name}!{token_hex(12)}"
        self._mailbox(name).abandoned_at = None
        return name

    async def send(self, channel: str, message: Any) -> None:
        """Send to one channel.

        Raises:
            ChannelFull: it is full, as far as this process knows.
            LayerUnavailableError: Redis is away for too long.
        """
        packed = codec.pack(message)
        owner = owner_of(channel)
        is_elsewhere = owner != self.name
        if is_elsewhere and self._bridge and await self._bridge.send(channel, owner, message):
            return
        if owner is None:
            await self._push(channel, packed)
        elif owner == self.name:
            box = self._mailbox(channel)
            if box.is_full:
                raise ChannelFull(channel)
            self._put(box, Letter(packed, self.loop.time() + self.options.expiry))
        else:
            await self._tell(owner, [channel, packed])

    async def receive(self, channel: str) -> Any:
        """Return the next message of a channel; wait for it.

        Raises:
            ConsumerOverflowError: the channel was full and is closed.
            ValueError: it is received from in another event loop.
        """
        box = self.mailboxes.get(channel)
        if box is None:
            owner = owner_of(channel)
            if owner is None:
                if self._bridge:
                    return await self._bridge.receive(channel, self._pull)
                return await self._pull(channel)
            if owner != self.name:
                raise ValueError(f"{channel} is a channel of another process or event loop")
            box = self._mailbox(channel)
        box.abandoned_at = None
        while (message := self.take(box)) is None:
            waiting = box.wait()
            try:
                await waiting
            except asyncio.CancelledError:
                box.give_up(waiting)
                self.abandon(box)
                raise
        return message

    def source(self, channel: str, waker: Callable[[], None]) -> MailboxSource | None:
        """Return what takes a channel's messages without a task; None if none can.

        Args:
            channel: its name.
            waker: called when there may be a message.
        """
        box = self.mailboxes.get(channel)
        return None if box is None else MailboxSource(self, box, waker)

    def take(self, box: Mailbox) -> Any:
        """Return the next message of a mailbox; None if there is none.

        Raises:
            ConsumerOverflowError: it was full, and is closed.
        """
        while (letter := self._next(box)) is not None:
            if letter.ends < self.loop.time():
                if letter.ends != GAP:
                    self._expire(box, letter)
                    continue
                box.told(letter.group)
            try:
                return codec.unpack(letter.packed)
            except CodecError:
                self.statistics.drop("unreadable", box.channel)
                self._miss(box, letter.group, 0)
        return None

    def _expire(self, box: Mailbox, letter: Letter) -> None:
        before = len(box.letters)
        number = 1 + box.expire(self.loop.time(), letter.group)
        self._waiting += len(box.letters) - before
        for _ in range(number):
            self.statistics.drop("expired", box.channel)

    def _miss(self, box: Mailbox, group: str | None, place: int) -> None:
        before = len(box.letters)
        box.miss(group, place)
        self._waiting += len(box.letters) - before

    def _next(self, box: Mailbox) -> Letter | None:
        if box.outlet is not None and box.outlet.is_blocked:
            box.outlet.release()
        try:
            letter = box.take()
        except ConsumerOverflowError:
            self.forget(box)
            raise
        if letter is not None:
            self._taken += 1
            self._waiting -= 1
        return letter

    def report_gaps(self, channel: str) -> None:
        """Have a channel get an event when messages of its groups may be lost."""
        self._mailbox(channel).report_gaps()

    def backlog(self) -> Backlog:
        """Return what is heard here, and what waits; also for another thread than the loop's."""
        # Meanwhile this loop may go on: a dictionary is copied before it is gone through, in one
        # step, and a mailbox may be empty by now.
        boxes = list(self.mailboxes.values())
        ends = [
            next((each.ends for each in box.letters if each.ends != GAP), math.inf)
            for box in boxes
            if box.letters and box.abandoned_at is None
        ]
        oldest = self.options.expiry - (min(ends, default=math.inf) - self.loop.time())
        frames, seconds = self.gatherer.backlog()
        return Backlog(
            subscriptions=sum(len(shard.subscriber.names) for shard in self.shards),
            waiting=sum(len(box.letters) for box in boxes) + frames,
            seconds=max(0.0, oldest, seconds),
        )

    # Groups

    async def group_add(self, group: str, channel: str) -> None:
        """Make a channel a member; it gets what is sent from now on.

        Raises:
            LayerUnavailableError: Redis is away for too long. The channel is no member then.
        """
        owner = owner_of(channel)
        if owner is None:
            shard, key = self._shard(group), self._members_key(group)
            expiry = int(self.options.group_expiry)
            await shard.sender.call(
                scripts.ENROL, (key,), lambda _: (channel, int(time.time()), expiry)
            )
        elif owner != self.name:
            await self._ask(owner, "add", group, channel)
        else:
            await self._join(group, channel)

    async def group_discard(self, group: str, channel: str) -> None:
        """Make a channel a member no more.

        Raises:
            LayerUnavailableError: it is none of this event loop's, and Redis is away.
        """
        owner = owner_of(channel)
        if owner is None:
            key = self._members_key(group)
            await self._shard(group).sender.call(scripts.DISMISS, (key,), lambda _: (channel,))
        elif owner != self.name:
            await self._ask(owner, "discard", group, channel)
        elif box := self.mailboxes.get(channel):
            self._part(group, box)

    async def group_send(self, group: str, message: Any) -> None:
        """Send to all members of a group.

        Raises:
            LayerUnavailableError: Redis is away for too long.
        """
        packed = codec.pack(message)
        name = self._topic_name(group)
        _, members = await self._shard(group).publish(name, self.cipher.seal(packed))
        for member in members:
            try:
                await self._push(member.decode(), packed)
            except ChannelFull:
                self.statistics.drop("queue full", member.decode())
        if self._bridge:
            await self._bridge.group_send(group, message)

    async def _join(self, name: str, channel: str) -> None:
        if self._bridge:
            await self._bridge.join(name)
        box = self._mailbox(channel)
        group = self.groups.get(name)
        if group is None:
            group = self.groups[name] = Group(name)
            group.joining = self._keep(self._open(group))
        is_new = box not in group.members
        group.members.add(box)
        if box.outlet is None:
            group.plain.add(box)
        else:
            self.gatherer.join(box.outlet, group.room)
        box.groups[name] = self.loop.time()
        if group.confirmed.is_set():
            return
        try:
            async with asyncio.timeout(self.options.send_timeout):
                await group.confirmed.wait()
        except BaseException as error:
            if is_new:
                self._part(name, box)
            if not isinstance(error, TimeoutError):
                raise
            within = f"within {self.options.send_timeout:g} s"
            raise LayerUnavailableError(f"could not subscribe to {name} {within}") from None

    async def _open(self, group: Group) -> None:
        """Subscribe to a group, however long Redis is away."""
        shard, name = self._shard(group.name), self._topic_name(group.name)
        backoff = Backoff()
        while group.topic is None:
            try:
                group.topic = Topic(name, await shard.position(name))
            except (LayerUnavailableError, ResponseError) as error:
                kind = type(error).__name__
                self.statistics.warn("joining", "cannot subscribe to %s yet: %s", group.name, kind)
                await backoff.wait()
        shard.open(group.topic)

    def _part(self, name: str, box: Mailbox) -> None:
        box.groups.pop(name, None)
        group = self.groups.get(name)
        if group is None or box not in group.members:
            return
        group.members.remove(box)
        group.plain.discard(box)
        if box.outlet is not None:
            self.gatherer.leave(box.outlet, group.room)
        if group.members:
            return
        del self.groups[name]
        if group.topic is not None:
            self._shard(name).leave(group.topic)
        elif group.joining is not None:
            group.joining.cancel()

    # What comes from Redis

    def _deliver(self, topic: Topic, entry: Entry) -> None:
        if topic is self._inbox:
            self._take_in(entry)
        elif group := self._group(topic):
            try:
                packed = self.cipher.open(entry.payload)
            except CodecError:
                self.statistics.drop("unreadable", group.name)
                self._missed(topic)
                return
            self._put_to(group, packed)

    def take_of_group(self, group: str, message: Mapping[str, Any]) -> None:
        """Deliver to the members of a group here."""
        if found := self.groups.get(group):
            self._put_to(found, codec.pack(message))

    def take_of_channel(self, channel: str, message: Mapping[str, Any]) -> None:
        """Deliver to a channel of this event loop."""
        self._put_into(channel, codec.pack(message))

    def _confirmed(self, topic: Topic) -> None:
        if group := self._group(topic):
            group.confirmed.set()

    def _missed(self, topic: Topic) -> None:
        """Tell the members of a group who asked for it that messages may be lost."""
        if group := self._group(topic):
            for box in group.members:
                self._miss(box, group.name, len(box.letters))

    def _group(self, topic: Topic) -> Group | None:
        return self.groups.get(topic.name.removeprefix(self._topic_name("")))

    def _take_in(self, entry: Entry) -> None:
        """Deliver a message to one channel, or do what another event loop asks for."""
        try:
            channel, content = codec.unpack(self.cipher.open(entry.payload))
            step = None if channel else self._do(**content)
        except (CodecError, TypeError, ValueError):
            self.statistics.drop("unreadable", self.name)
            return
        if step is not None:
            self._keep(step)
        else:
            self._put_into(channel, content)

    def _put_into(self, channel: str, packed: bytes) -> None:
        self._put(self._mailbox(channel), Letter(packed, self.loop.time() + self.options.expiry))

    def _put_to(self, group: Group, packed: bytes) -> None:
        boxes, frame = group.members, frame_of(packed)
        if frame is not None:
            self.gatherer.publish(group.room, frame)
            boxes = group.plain
        if boxes:
            ends = self.loop.time() + self.options.expiry
            self._put_all(boxes, Letter(packed, ends, group.name))

    def _put_all(self, boxes: set[Mailbox], letter: Letter) -> None:
        """Put a message into many mailboxes: without a call for each that has room."""
        full = []
        for box in boxes:
            waiting = len(box.letters) + 1
            if waiting <= box.capacity and not box.closed:
                if 2 * waiting > box.capacity:
                    self._crowded = box
                if box.outlet is not None:
                    box.outlet.block()
                box.letters.append(letter)
                if box.waker is not None:
                    box.waker()
                elif box.receivers:
                    box.wake()
            else:
                full.append(box)
        number = len(boxes) - len(full)
        self._waiting += number
        self.statistics.delivered += number
        for box in full:
            self._put(box, letter)

    def _put(self, box: Mailbox, letter: Letter) -> None:
        before = len(box.letters)
        reason = box.put(letter)
        self._waiting += len(box.letters) - before
        if 2 * len(box.letters) > box.capacity:
            self._crowded = box
        if reason is None:
            self.statistics.delivered += 1
        else:
            self.statistics.drop(reason, box.channel)
            if box.closed:
                self._leave_all(box)

    async def _turn(self) -> None:
        """Let receivers take what there is, as long as they do.

        What Redis sends in one piece would else fill their mailboxes, and be dropped, before they
        have had a chance. One that takes nothing does not hold up the others.
        """
        idle = 0
        crowded, self._crowded = self._crowded, None
        while idle < IDLE_TURNS and (
            self._waiting > len(self.mailboxes)
            or (crowded is not None and 2 * len(crowded.letters) > crowded.capacity)
        ):
            taken = self._taken
            await asyncio.sleep(0)
            idle = idle + 1 if taken == self._taken else 0

    # Mailboxes

    def open_socket(self, channel: str, outlet: Outlet) -> None:
        """Begin to write frames to a socket, in the place of events."""
        box = self._mailbox(channel)
        box.outlet = outlet
        self.gatherer.open(outlet, box)
        for name in box.groups:
            group = self.groups[name]
            group.plain.discard(box)
            self.gatherer.join(outlet, group.room)

    def _mailbox(self, channel: str) -> Mailbox:
        box = self.mailboxes.get(channel)
        if box is None:
            capacity = self.capacity(channel)
            box = self.mailboxes[channel] = Mailbox(channel, capacity, self.options.overflow)
            # Until somebody receives from it.
            box.abandoned_at = self.loop.time()
            if self._inbox is None:
                self._open_inbox()
        return box

    def _open_inbox(self) -> None:
        if self._inbox is None:
            # Its name is new: all that is sent to it is for this event loop.
            self._inbox = Topic(self._inbox_name(self.name), None)
            self._shard(self.name).open(self._inbox)
            self._sweep_from_now_on()

    def abandon(self, box: Mailbox) -> None:
        """Note that nobody receives from a channel: most likely, its consumer has ended."""
        if box.receivers:
            return
        if (box.groups or box.letters) and box.outlet is None:
            box.abandoned_at = self.loop.time()
        else:
            self.forget(box)

    def forget(self, box: Mailbox) -> None:
        """Leave a channel's groups, and drop what waits for it."""
        self._leave_all(box)
        box.outlet = None
        self._waiting -= len(box.letters)
        box.letters.clear()
        # There may be another one by now: somebody has sent to the channel.
        if self.mailboxes.get(box.channel) is box:
            del self.mailboxes[box.channel]

    def _leave_all(self, box: Mailbox) -> None:
        for name in list(box.groups):
            self._part(name, box)

    def _sweep_from_now_on(self) -> None:
        if self._sweeping is None:
            self._sweeping = self._keep(self._sweep())

    async def _sweep(self) -> None:
        while True:
            await asyncio.sleep(SWEEP_SECONDS)
            now = self.loop.time()
            for box in list(self.mailboxes.values()):
                for name, since in list(box.groups.items()):
                    if since + self.options.group_expiry < now:
                        self._part(name, box)
                at = box.abandoned_at
                if at is not None and at + self.options.expiry < now:
                    self.statistics.dropped["no receiver"] += len(box.letters)
                    self.forget(box)
            for name, queue in list(self._queues.items()):
                if queue.idle_at + self.options.expiry < now and queue.is_idle:
                    del self._queues[name]
                    queue.shard.subscriber.remove(name)

    # Other event loops

    async def _tell(self, owner: str, content: list[Any]) -> bool:
        """Send to another event loop; return whether it hears."""
        payload = self.cipher.seal(codec.pack(content))
        heard, _ = await self._shard(owner).publish(self._inbox_name(owner), payload)
        return heard > 0

    async def _ask(self, owner: str, verb: str, group: str, channel: str) -> None:
        """Have another event loop do something, and wait until it has."""
        self._open_inbox()
        token = token_hex(8)
        done = self._asked[token] = self.loop.create_future()
        step = {"verb": verb, "group": group, "channel": channel}
        try:
            async with asyncio.timeout(self.options.send_timeout):
                content = ["", {**step, "answer_to": self.name, "token": token}]
                if not await self._tell(owner, content) and verb == "discard":
                    # It has ended, or reads this in its history when it is connected again.
                    return
                await done
        except TimeoutError:
            raise LayerUnavailableError(f"the process of {channel} did not answer") from None
        finally:
            del self._asked[token]

    async def _do(self, verb: str, token: str, **step: str) -> None:
        if verb == "done":
            if (done := self._asked.get(token)) and not done.done():
                done.set_result(None)
            return
        channel, group = step["channel"], step["group"]
        try:
            if verb == "add":
                await self._join(group, channel)
            elif box := self.mailboxes.get(channel):
                self._part(group, box)
            await self._tell(step["answer_to"], ["", {"verb": "done", "token": token}])
        except LayerUnavailableError:
            # The other one stops waiting, too.
            text = "could not answer another process about %s: Redis is away"
            self.statistics.warn("unanswered", text, channel)

    # Named channels

    async def _push(self, channel: str, packed: bytes) -> None:
        shard = self._shard(channel)
        name = self._queue_name(channel)
        payload = self.cipher.seal(packed)
        capacity, milliseconds = self.capacity(channel), int(self.options.expiry * 1000)
        taken = await shard.sender.call(
            scripts.PUSH,
            (name, f"{name}:{self.name}:number"),
            lambda number: (name, number, capacity, milliseconds, payload),
            len(payload),
        )
        if not taken:
            raise ChannelFull(channel)

    async def _pull(self, channel: str) -> Any:
        name = self._queue_name(channel)
        shard = self._shard(channel)
        queue = self._queues.setdefault(name, _Queue(shard))
        shard.listen(name)
        self._sweep_from_now_on()
        queue.receivers += 1
        try:
            while True:
                queue.woken.clear()
                payload = await self._take(shard, name, queue)
                if payload is None:
                    await queue.woken.wait()
                    continue
                try:
                    return codec.unpack(self.cipher.open(payload))
                except CodecError:
                    self.statistics.drop("unreadable", channel)
        finally:
            queue.receivers -= 1
            queue.idle_at = self.loop.time()
            # There may be more, and what it was woken for is the next one's.
            queue.woken.set()

    async def _take(self, shard: Shard, name: str, queue: _Queue) -> bytes | None:
        """Return an item of a queue, None if there is none."""
        # One at a time: Redis keeps the last item that was taken, for a sender that asks again.
        async with queue.lock:
            if queue.taking is not None and (left := await self._taken_of(queue)) is not None:
                # What was taken for a receiver that has given up. None may be out of date.
                return left
            milliseconds = int(self.options.expiry * 1000)
            keys = (name, f"{name}:{self.name}:taken")
            command = shard.sender.post(scripts.TAKE, keys, lambda number: (number, milliseconds))
            queue.taking = command.answer
            return await self._taken_of(queue)

    @staticmethod
    async def _taken_of(queue: _Queue) -> bytes | None:
        assert queue.taking is not None  # noqa: S101 - its caller has looked
        try:
            answer: bytes | None = await asyncio.shield(queue.taking)
        except Exception:
            # Not where the receiver has given up: the item is the next one's.
            queue.taking = None
            raise
        queue.taking = None
        return answer

    def _woken(self, name: str) -> None:
        if queue := self._queues.get(name):
            queue.woken.set()

    # Names

    def _shard(self, name: str) -> Shard:
        return self.shards[shard_number(name, len(self.shards))]

    def _topic_name(self, group: str) -> str:
        return f"{self.options.prefix}:fanout:group:{group}"

    def _members_key(self, group: str) -> str:
        return f"{self._topic_name(group)}:members"

    def _inbox_name(self, hub: str) -> str:
        return f"{self.options.prefix}:fanout:inbox:{hub}"

    def _queue_name(self, channel: str) -> str:
        return f"{self.options.prefix}:fanout:queue:{channel}"

    def _keep(self, coroutine: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        # asyncio itself keeps no task from being collected.
        task = self.loop.create_task(coroutine)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task


class MailboxSource:
    """A mailbox, as `channels_kit.serving.dispatch` takes events from it.

    Args:
        hub: of the event loop.
        box: the mailbox.
        waker: called when there may be a message.
    """

    __slots__ = ("_box", "_hub")

    def __init__(self, hub: Hub, box: Mailbox, waker: Callable[[], None]) -> None:
        self._hub = hub
        self._box = box
        box.abandoned_at = None
        box.waker = waker

    def take(self) -> Any:
        """Return the next message; None if there is none yet.

        Raises:
            ConsumerOverflowError: the mailbox was full, and is closed.
        """
        box = self._box
        is_blocked = box.outlet is not None and box.outlet.is_blocked
        return self._hub.take(box) if box.letters or box.closed or is_blocked else None

    def has_more(self) -> bool:
        """Return whether there is one."""
        return bool(self._box.letters) or self._box.closed

    def taken(self) -> None:
        """Note that the message has been handled."""

    def cancel(self) -> None:
        """Receive no more."""
        # The consumer has ended: nobody else receives from its channel.
        self._box.waker = None
        self._hub.forget(self._box)

    async def ended(self) -> None:
        """Wait for nothing: nothing is under way."""


class _Queue:
    """A named channel that is received from in this event loop.

    Args:
        shard: has the queue.
    """

    def __init__(self, shard: Shard) -> None:
        self.shard = shard
        # Calls of `receive` that wait, and when the last of them ended.
        self.receivers = 0
        self.idle_at = math.inf
        # Whether there may be something in it.
        self.woken = asyncio.Event()
        self.lock = asyncio.Lock()
        # What Redis has been asked for; a receiver that gives up leaves it to the next one.
        self.taking: asyncio.Future[Any] | None = None

    @property
    def is_idle(self) -> bool:
        """Whether nobody receives from it, and Redis has answered all."""
        return not self.receivers and (self.taking is None or self.taking.done())


def owner_of(channel: str) -> str | None:
    """Return the hub that a channel is received from; None for a named channel."""
    local, mark, _ = channel.partition("!")
    return local.rpartition(".")[2] if mark else None
