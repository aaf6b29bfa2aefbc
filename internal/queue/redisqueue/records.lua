-- All operations on the items of one queue. One script, so that there is one to load, and each run of it is atomic. It is
-- put together from this file, which keeps the records of items, list.lua or stream.lua, which know where ready items
-- are, and ops.lua, the operations.
--
-- KEYS are those of keys.go, in its order; all are in one slot. ARGV[1] is the operation, ARGV[2] the time in
-- milliseconds since 1970, or empty for the server's own, the rest is the operation's.
--
-- From its claim on an item has an id, its bytes are in `items` and what is known of it is in `meta` (JSON): a counts its
-- claims, f its failures since it was last given all attempts, t all of them, q is when it was first seen, o its owner
-- while it is claimed, c since when, l that it has a lease, x and d what to do when that is lost, p the number of its
-- parts if there are several, n that its id is known to somebody, e1 and e2 its first and last failure, s the entries of
-- the stream that it is from. `wake` is when something comes back to the queue next, for those who watch it.

local queue, items, meta, claimed, leases, due, delayed, dead, past, state, wake = unpack(KEYS, 1, 11)
local call, encode, decode = redis.call, cjson.encode, cjson.decode
local now = tonumber(ARGV[2])
if not now then
  local time = call('TIME')
  now = time[1] * 1000 + math.floor(time[2] / 1000)
end

local SWEEP = 1000 -- how many items one sweep moves at the most of each kind
local SAMPLE, SAMPLES = 5000, 128 -- a sample for the rates every so many milliseconds, and how many are kept
local GRACE = 10000 -- for how long after its start a server ends no leases of before: they could not be renewed
local SHOWN = 4096 -- how many bytes of a part a list shows

-- Ids: the time and a count within it, never less than the last one, whatever the clock does.
local clock, count
local function newid()
  if not clock then
    local last = call('HMGET', state, 'ms', 'n')
    clock, count = tonumber(last[1]) or -1, tonumber(last[2]) or 0
  end
  if now > clock then
    clock, count = now, 0
  elseif count < 0xfffff then
    count = count + 1
  else
    clock, count = clock + 1, 0
  end
  return string.format('%011x%05x', clock, count)
end

local notes = {} -- what to note in the state at the end
local added = {} -- what to add to the counters at the end
local function add(counter, n) added[counter] = (added[counter] or 0) + n end

local function first(key)
  local entry = call('ZRANGE', key, 0, 0, 'WITHSCORES')
  return entry[2] and tonumber(entry[2])
end

-- When something is due next; nil when nothing is.
local function soonest(keys)
  local next
  for _, key in ipairs(keys) do
    local at = first(key)
    if at and (not next or at < next) then next = at end
  end
  return next
end

-- When the server started, if that was only just now; nil where it may not be asked.
local function started()
  if ARGV[2] ~= '' then return nil end -- the time is not the server's
  local info = redis.pcall('INFO', 'server')
  local uptime = type(info) == 'string' and tonumber(string.match(info, 'uptime_in_seconds:(%d+)'))
  return uptime and uptime * 1000 < GRACE and now - uptime * 1000 or nil
end

local spared -- until when leases that are over are not ended yet

-- Milliseconds until something is due; -1 for never.
local function untilnext()
  local next = soonest({due, delayed, leases})
  if spared then next = math.min(soonest({due, delayed}) or spared, spared) end
  return next and math.max(0, math.ceil(next - now)) or -1
end

local timed -- a time has changed at which something is due
local function schedule(key, at, id)
  call('ZADD', key, at, id)
  timed = true
end
local function unschedule(key, id)
  timed = true
  return call('ZREM', key, id)
end

local function finish()
  if timed then
    local next = soonest({due, delayed, leases})
    next = next and string.format('%.0f', next)
    if next ~= (call('GET', wake) or nil) then
      if next then call('SET', wake, next) else call('DEL', wake) end
    end
  end
  if clock then
    call('HSET', state, 'ms', clock, 'n', count)
  end
  for name, value in pairs(notes) do call('HSET', state, name, value) end
  for counter, n in pairs(added) do
    if n ~= 0 and call('HINCRBY', state, counter, n) <= 0 and string.sub(counter, 1, 2) == 'o:' then
      call('HDEL', state, counter)
    end
  end
end

local function load(id)
  local text = call('HGET', meta, id)
  return text and decode(text)
end

local function part(id, i) return i == 1 and id or id .. ':' .. i end

local function parts(id, m)
  local names = {}
  for i = 1, m.p or 1 do names[i] = part(id, i) end
  return call('HMGET', items, unpack(names))
end

local function forget(id, m)
  for i = 1, m.p or 1 do call('HDEL', items, part(id, i)) end
  call('HDEL', meta, id)
end

local function unclaim(id, m)
  call('ZREM', claimed, id)
  if m.l then unschedule(leases, id) end
  add('o:' .. m.o, -1)
  m.o, m.c, m.l, m.x, m.d = nil, nil, nil, nil, nil
end

local function fail(m, failure)
  m.f, m.t = m.f + 1, (m.t or 0) + 1
  m.e1, m.e2 = m.e1 or failure, failure
end

local function save(id, m) call('HSET', meta, id, encode(m)) end

-- What is known of an item while it is ready; the id when it is to come back as the same one.
local function memory(m, id)
  return {id = id, a = m.a, f = m.f, t = m.t, q = m.q, n = m.n, e1 = m.e1, e2 = m.e2}
end
