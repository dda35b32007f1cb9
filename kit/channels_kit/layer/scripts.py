"""The steps that Redis takes at once.

Each is safe to be sent again by a sender that does not know whether Redis has taken it: receivers
know a message by its sender and number, a queue by its sender's last number, a take by its name.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field


@dataclass(frozen=True)
class Script:
    """A script of Redis.

    Attributes:
        text: in Lua.
        digest: by which Redis calls it.
    """

    text: str
    digest: str = field(init=False)

    def __post_init__(self) -> None:
        digest = hashlib.sha1(self.text.encode()).hexdigest()  # noqa: S324 - Redis' own choice
        object.__setattr__(self, "digest", digest)


# A counter begins at the time, in microseconds: one that was forgotten goes on above what it was.
_FUNCTIONS = """\
local function epoch_of(key, candidate)
  local epoch = redis.call('HGET', key, 'epoch')
  if epoch then return epoch end
  redis.call('HSET', key, 'epoch', candidate)
  return candidate
end
local function begin(key)
  local now = redis.call('TIME')
  redis.call('SET', key, string.format('%.0f', now[1] * 1000000 + now[2]), 'NX')
end
"""

GREET = Script("""\
-- KEYS: epoch. ARGV: what tells one history of this Redis' data from another, a new epoch.
if redis.call('HGET', KEYS[1], 'data') ~= ARGV[1] then
  redis.call('HSET', KEYS[1], 'data', ARGV[1], 'epoch', ARGV[2])
end
return redis.call('HGET', KEYS[1], 'epoch')
""")

PUBLISH = Script(
    _FUNCTIONS
    + """\
-- KEYS: epoch, counter, history, members. ARGV: channel, body, size and milliseconds of the
-- history, milliseconds of the counter, an epoch. Returns how many hear it, and the members.
local epoch = epoch_of(KEYS[1], ARGV[6])
local offset = redis.call('INCR', KEYS[2])
if offset == 1 then
  redis.call('DEL', KEYS[2])
  begin(KEYS[2])
  offset = redis.call('INCR', KEYS[2])
end
redis.call('PEXPIRE', KEYS[2], ARGV[5])
local entry = epoch .. ' ' .. string.format('%.0f', offset) .. ' ' .. ARGV[2]
if tonumber(ARGV[3]) > 0 then
  redis.call('RPUSH', KEYS[3], entry)
  redis.call('LTRIM', KEYS[3], -ARGV[3], -1)
  redis.call('PEXPIRE', KEYS[3], ARGV[4])
end
local heard = redis.call('PUBLISH', ARGV[1], entry)
return {heard, redis.call('ZRANGE', KEYS[4], 0, -1)}
"""
)

CATCH_UP = Script(
    _FUNCTIONS
    + """\
-- KEYS: epoch, counter, history. ARGV: epoch and offset that are known ('' for none), milliseconds
-- of the counter, an epoch. Returns the epoch, the offset, and what follows on what is known.
local epoch = epoch_of(KEYS[1], ARGV[4])
begin(KEYS[2])
redis.call('PEXPIRE', KEYS[2], ARGV[3])
local offset = redis.call('GET', KEYS[2])
local entries = {}
if ARGV[1] == epoch then
  local missed = tonumber(offset) - tonumber(ARGV[2])
  if missed > 0 then entries = redis.call('LRANGE', KEYS[3], -math.min(missed, 1000000), -1) end
elseif ARGV[1] ~= '' then
  entries = redis.call('LRANGE', KEYS[3], 0, -1)
end
return {epoch, offset, entries}
"""
)

PUSH = Script("""\
-- KEYS: queue, last number of the sender. ARGV: channel to wake, number, capacity, milliseconds,
-- payload. Returns 0 if the queue is full. An item is its end in milliseconds, then the payload.
if tonumber(redis.call('GET', KEYS[2]) or '-1') >= tonumber(ARGV[2]) then return 1 end
local now = redis.call('TIME')
now = now[1] * 1000 + math.floor(now[2] / 1000)
while true do
  local first = redis.call('LINDEX', KEYS[1], 0)
  if not first or tonumber(string.match(first, '^%d+')) >= now then break end
  redis.call('LPOP', KEYS[1])
end
if redis.call('LLEN', KEYS[1]) >= tonumber(ARGV[3]) then return 0 end
redis.call('RPUSH', KEYS[1], string.format('%.0f', now + ARGV[4]) .. ' ' .. ARGV[5])
redis.call('PEXPIRE', KEYS[1], ARGV[4])
redis.call('SET', KEYS[2], ARGV[2], 'PX', ARGV[4])
redis.call('PUBLISH', ARGV[1], '')
return 1
""")

TAKE = Script("""\
-- KEYS: queue, what this receiver has taken. ARGV: the name of the take, milliseconds. Returns the
-- payload; the same one again for the same name.
if redis.call('HGET', KEYS[2], 'name') == ARGV[1] then
  return redis.call('HGET', KEYS[2], 'item')
end
local now = redis.call('TIME')
now = now[1] * 1000 + math.floor(now[2] / 1000)
while true do
  local item = redis.call('LPOP', KEYS[1])
  if not item then return false end
  local ends, space = string.match(item, '^(%d+)()')
  if tonumber(ends) >= now then
    local payload = string.sub(item, space + 1)
    redis.call('HSET', KEYS[2], 'name', ARGV[1], 'item', payload)
    redis.call('PEXPIRE', KEYS[2], ARGV[2])
    return payload
  end
end
""")

ENROL = Script("""\
-- KEYS: members. ARGV: channel, seconds of now, seconds of a membership.
redis.call('ZADD', KEYS[1], ARGV[2], ARGV[1])
redis.call('ZREMRANGEBYSCORE', KEYS[1], '-inf', ARGV[2] - ARGV[3])
redis.call('EXPIRE', KEYS[1], ARGV[3])
return 1
""")

DISMISS = Script("""\
-- KEYS: members. ARGV: channel.
return redis.call('ZREM', KEYS[1], ARGV[1])
""")

ATTEND = Script("""\
-- KEYS: state of the bridge, presence of an event loop. ARGV: what it does, milliseconds. Returns
-- what it shall do; false if nobody has said it.
redis.call('SET', KEYS[2], ARGV[1], 'PX', ARGV[2])
return redis.call('GET', KEYS[1])
""")

ALL = (GREET, PUBLISH, CATCH_UP, PUSH, TAKE, ENROL, DISMISS, ATTEND)
