"""What a cluster's nodes change together in Redis, each in one step.

All keys of an application begin with `KEYS[1]`, whose braces keep them on one Redis of a cluster.

| key | what it holds |
| --- | --- |
| `KEYS[1]` | stream: what is told in order; `m` is a script's change, a node's name its events |
| `:nodes` | sorted set: when each node was last heard of |
| `:subs:NODE` | hash: how many subscribers each channel has there |
| `:members:NODE` | set: channel and user, for each member there |
| `:users:NODE` | set: who is signed in there |
| `:channels` | hash: how many subscribers each channel has in all |
| `:holders:CHANNEL` | hash: on how many nodes each member is |
| `:infos:CHANNEL` | hash: what was said of each member first |
| `:version`, `:versions` | how many changes of members there were, and each channel's last |
| `:users` | hash: on how many nodes each user is signed in |
| `:gone` | sorted set: what webhooks are to be told is gone, if it does not come back, by when |
| `:epoch` | anything; it is another one where the data was lost |
| `:settling` | is there for a while then, until all nodes have told anew what they had |
| `:before`, `:came` | sets, until then: what webhooks were told before, and what is new |
| `:cache:CHANNEL` | what a cache channel keeps |
| `:connections` | hash: how many connections each node has |
"""

from __future__ import annotations

from typing import Final

__all__ = ["BEAT", "COUNTS", "LEAVE", "MEMBERS", "SWEEP", "USERS"]

_COMMON: Final = r"""
local p = KEYS[1]

local function tell(...)
  redis.call('XADD', p, 'MAXLEN', '~', 5000, '*', 'm', cmsgpack.pack({...}))
end

local function clock()
  local time = redis.call('TIME')
  return time[1] * 1000 + math.floor(time[2] / 1000)
end

-- Who is gone waits to be told to webhooks, so that who comes back at once, anywhere, never was.
local function left(id) redis.call('ZADD', p .. ':gone', 'NX', clock(), id) end
local function is_back(id) return redis.call('ZREM', p .. ':gone', id) == 1 end

-- Where the data was lost, what is new is known only when all have told what there was before.
local function is_settling() return redis.call('EXISTS', p .. ':settling') == 1 end
local function was_before(id) return redis.call('SISMEMBER', p .. ':before', id) == 1 end

local function remember(id)
  redis.call('SADD', p .. ':before', id)
  redis.call('SREM', p .. ':came', id)
end

-- Whether webhooks are to be told now that there is a member or an occupied channel.
local function appears(id, is_known)
  if is_back(id) or is_known then return false end
  if not is_settling() then return true end
  if not was_before(id) then redis.call('SADD', p .. ':came', id) end
  return false
end

local function vanishes(id)
  if is_settling() and not was_before(id) then redis.call('SREM', p .. ':came', id)
  else left(id) end
end

-- A channel's members have changed: the number of this change, and of the one before.
local function moved(channel)
  local before = tonumber(redis.call('HGET', p .. ':versions', channel) or 0)
  local version = redis.call('INCR', p .. ':version')
  redis.call('HSET', p .. ':versions', channel, version)
  return version, before
end

-- 0: no room; 1: is there already, here or on another node; 2: is there now; 3: the same, not new.
local function come(node, channel, user, info, max, is_known)
  local mine, holders = p .. ':members:' .. node, p .. ':holders:' .. channel
  local id = channel .. '\n' .. user
  if is_known then remember(id) end
  if redis.call('SISMEMBER', mine, id) == 1 then return 1 end
  local before = tonumber(redis.call('HGET', holders, user) or 0)
  if before == 0 and max > 0 and redis.call('HLEN', holders) >= max then return 0 end
  redis.call('SADD', mine, id)
  redis.call('HINCRBY', holders, user, 1)
  if before > 0 then return 1 end
  redis.call('HSET', p .. ':infos:' .. channel, user, info)
  tell('+', channel, user, info, moved(channel))
  return appears(id, is_known) and 2 or 3
end

-- 1: is there still, or was not; 2: is gone now.
local function go(node, channel, user)
  local holders, id = p .. ':holders:' .. channel, channel .. '\n' .. user
  if redis.call('SREM', p .. ':members:' .. node, id) == 0 then return 1 end
  if redis.call('HINCRBY', holders, user, -1) > 0 then return 1 end
  redis.call('HDEL', holders, user)
  redis.call('HDEL', p .. ':infos:' .. channel, user)
  tell('-', channel, user, moved(channel))
  vanishes(id)
  if redis.call('EXISTS', holders) == 0 then redis.call('HDEL', p .. ':versions', channel) end
  return 2
end

-- The channel's subscribers in all, before and after, and whether it is occupied anew (1).
local function count(node, channel, n, is_known)
  if is_known then remember(channel) end
  local mine = p .. ':subs:' .. node
  local before = tonumber(redis.call('HGET', mine, channel) or 0)
  if n > 0 then redis.call('HSET', mine, channel, n) else redis.call('HDEL', mine, channel) end
  local total = redis.call('HINCRBY', p .. ':channels', channel, n - before)
  if total <= 0 then redis.call('HDEL', p .. ':channels', channel) end
  local was, is_new = total - (n - before), 0
  if was <= 0 and total > 0 and appears(channel, is_known) then is_new = 1 end
  if was > 0 and total <= 0 then vanishes(channel) end
  return was, total, is_new
end

local function user(node, id, is_here)
  local mine, all = p .. ':users:' .. node, p .. ':users'
  if is_here then
    if redis.call('SADD', mine, id) == 1 and redis.call('HINCRBY', all, id, 1) == 1 then
      tell('u', id, 1)
    end
  elseif redis.call('SREM', mine, id) == 1 and redis.call('HINCRBY', all, id, -1) <= 0 then
    redis.call('HDEL', all, id)
    tell('u', id, 0)
  end
end

-- A node is no more: all it held goes.
local function bury(node)
  for _, id in ipairs(redis.call('SMEMBERS', p .. ':members:' .. node)) do
    local at = string.find(id, '\n', 1, true)
    go(node, string.sub(id, 1, at - 1), string.sub(id, at + 1))
  end
  local subs = redis.call('HKEYS', p .. ':subs:' .. node)
  for _, channel in ipairs(subs) do count(node, channel, 0) end
  for _, id in ipairs(redis.call('SMEMBERS', p .. ':users:' .. node)) do user(node, id, false) end
  redis.call('ZREM', p .. ':nodes', node)
  redis.call('HDEL', p .. ':connections', node)
end
"""

MEMBERS: Final = (
    _COMMON
    + r"""
-- ARGV: node, channel, user, info ('' to go), the most there may be, whether all are wanted, and
-- whether webhooks were told before the data was lost.
local node, channel, who, info = ARGV[1], ARGV[2], ARGV[3], ARGV[4]
local outcome
if info == '' then outcome = go(node, channel, who)
elseif who == '' then outcome = 1
else outcome = come(node, channel, who, info, tonumber(ARGV[5]), ARGV[7] == '1') end
if ARGV[6] == '0' then return {outcome} end
local version = tonumber(redis.call('HGET', p .. ':versions', channel) or 0)
return {outcome, version, redis.call('HGETALL', p .. ':infos:' .. channel)}
"""
)
"""One user comes into a presence channel or goes; nobody does where the user is empty."""

COUNTS: Final = (
    _COMMON
    + r"""
-- ARGV: node, whether to tell the subscribers, whether webhooks were told before the data was lost,
-- then channel and number again and again.
local totals = {}
for i = 4, #ARGV, 2 do
  local before, total, is_new = count(ARGV[1], ARGV[i], tonumber(ARGV[i + 1]), ARGV[3] == '1')
  if ARGV[2] == '1' and before ~= total then tell('n', ARGV[i], total) end
  table.insert(totals, before)
  table.insert(totals, total)
  table.insert(totals, is_new)
end
return totals
"""
)
"""How many subscribers channels have on a node.

Gives for each: before and after in all, and whether it is occupied anew.
"""

USERS: Final = (
    _COMMON
    + r"""
-- ARGV: node, then user and 1 or 0 again and again.
for i = 2, #ARGV, 2 do user(ARGV[1], ARGV[i], ARGV[i + 1] == '1') end
"""
)
"""Who is signed in on a node."""

BEAT: Final = (
    _COMMON
    + r"""
-- ARGV: node, its connections, milliseconds after which a silent node is dead, an epoch, and for
-- how long the nodes settle where this one knew of another; 0 where it knew of none.
local nodes, now, patience = p .. ':nodes', clock(), tonumber(ARGV[3])
local newest = redis.call('ZREVRANGE', nodes, 0, 0, 'WITHSCORES')[2]
-- Where all were silent it was the Redis that was away, and they have yet to come back to it.
if newest and now - newest > patience / 2 then
  for _, each in ipairs(redis.call('ZRANGE', nodes, 0, -1)) do
    redis.call('ZADD', nodes, now, each)
  end
end
local is_new = redis.call('ZADD', nodes, now, ARGV[1])
redis.call('HSET', p .. ':connections', ARGV[1], ARGV[2])
for _, dead in ipairs(redis.call('ZRANGEBYSCORE', nodes, '-inf', now - patience)) do
  bury(dead)
end
redis.call('PEXPIRE', p, 86400000) -- where no node serves the application any more
if redis.call('SETNX', p .. ':epoch', ARGV[4]) == 1 and tonumber(ARGV[5]) > 0 then
  redis.call('SET', p .. ':settling', '', 'PX', ARGV[5])
end
local elsewhere = -tonumber(ARGV[2])
for _, each in ipairs(redis.call('HVALS', p .. ':connections')) do elsewhere = elsewhere + each end
return {is_new, redis.call('GET', p .. ':epoch'), elsewhere}
"""
)
"""A node lives; those that do not are buried. Gives whether it was unknown, the epoch, and how many
connections the others have."""

SWEEP: Final = (
    _COMMON
    + r"""
-- ARGV: milliseconds for which who is gone may come back, how many to give at most.
local gone, now = p .. ":gone", clock()
if is_settling() then return {redis.call('PTTL', p .. ':settling'), {}, {}} end
redis.call('DEL', p .. ':before')
local came = redis.call('SPOP', p .. ':came', ARGV[2])
local over = redis.call('ZRANGEBYSCORE', gone, '-inf', now - ARGV[1], 'LIMIT', 0, ARGV[2])
if #over > 0 then redis.call('ZREM', gone, unpack(over)) end
local first = redis.call('ZRANGE', gone, 0, 0, 'WITHSCORES')[2]
local wait = first and math.max(0, first + ARGV[1] - now) or -1
if #came > 0 then wait = 0 end
return {wait, over, came}
"""
)
"""Who has not come back: whoever asks tells it.

Gives in how many milliseconds there is more, -1 for never, channels and members that are gone, and
those that turned out to be new.
"""

LEAVE: Final = (
    _COMMON
    + r"""
bury(ARGV[1])
return redis.call('EXISTS', p .. ':nodes')
"""
)
"""A node ends by itself; gives whether there are others."""
