-- Where the ready items of a stream are.
--
-- A ready item is an entry that the consumer group has not read, or one that was read before and is back: its record,
-- under the name of the part, is then kept, and `back` has that name in the order of the stream. From its first claim
-- on until its end the entry is pending for the consumer `offboard`, which takes entries for all owners. Whoever else
-- acknowledges or claims it while it is back takes it away. `past` holds what is known of entries that nobody has read,
-- by their ids.
--
-- In a record, s has for each part the id of its entry; in front of it and a colon, while it is pending, the number of the
-- consumer that it is pending for: with a group or a consumer that is deleted its pending entries go, the next one has
-- another number, and what is known here of these entries is then all there is.

local stream, back = queue, KEYS[12]
local group, field = table.remove(ARGV), table.remove(ARGV)
local CONSUMER = 'offboard'
local PAGE, COUNTED = 100, 1000 -- entries are counted by so many, up to so many, where the server does not know

local function generation() return tonumber(call('HGET', state, 'consumers')) or 0 end

-- The entry and, while it is pending for this one of the consumers, that it is.
local function entryof(s, current)
  local made, entry = string.match(s, '^(%d+):(.*)$')
  return entry or s, tonumber(made) == current
end

-- The id of an entry so that texts sort as ids do.
local function sortable(entry)
  local ms, seq = string.match(entry, '^(%d+)%-(%d+)$')
  return string.rep('0', 20 - #ms) .. ms .. string.rep('0', 20 - #seq) .. seq
end

local function info(fields)
  local named = {}
  for i = 1, #fields, 2 do named[fields[i]] = fields[i + 1] end
  return named
end

-- The last entry that the group has read, and how many it has not, if that is certain; nil when there is no group.
local function position()
  if call('EXISTS', stream) == 0 then return nil end
  for _, fields in ipairs(call('XINFO', 'GROUPS', stream)) do
    local known = info(fields)
    if known.name == group then return known['last-delivered-id'], known['entries-read'] and known.lag end
  end
  return nil
end

-- From where a group is to be made that is not there: from the beginning, or, where one was there before and it is still
-- the same stream, from where it was.
local function beginning()
  local last = call('HGET', state, 'last')
  if not last or call('EXISTS', stream) == 0 then return '0-0' end
  local newest = info(call('XINFO', 'STREAM', stream))['last-generated-id']
  return sortable(newest) < sortable(last) and '0-0' or last
end

-- How many entries the group has not read. What the server says counts entries that were trimmed.
local function unread()
  local last, lag = position()
  last = last or beginning()
  local length = call('XLEN', stream)
  if lag then return math.min(lag, length) end
  if last == '0-0' then return length end
  local n = 0
  while n < COUNTED do
    local page = call('XRANGE', stream, '(' .. last, '+', 'COUNT', PAGE)
    n = n + #page
    if #page < PAGE then break end
    last = page[PAGE][1]
  end
  return n
end

-- How many elements are ready.
local function ready() return call('ZCARD', back) + unread() end

-- Puts an item back, ahead of what nobody has read.
local function tohead(id, m)
  for i, s in ipairs(m.s) do
    local known = memory(m, not m.p and id or nil)
    known.s = {s}
    save(part(id, i), known)
    call('ZADD', back, 0, sortable(entryof(s)) .. ':' .. part(id, i))
  end
  add('in', -#m.s) -- it is taken once more
end

-- Appends an item that was not claimed yet.
local function totail(id, m)
  local entry = call('XADD', stream, '*', field ~= '' and field or 'item', parts(id, m)[1])
  call('HSET', past, entry, encode(memory(m, id)))
  forget(id, m)
end

-- Acknowledges the entries of an item that has ended.
local function over(m)
  local current = generation()
  for i, s in ipairs(m.s or {}) do
    local entry, pending = entryof(s, current)
    if pending then call('XACK', stream, group, entry) end
    m.s[i] = entry
  end
end

-- The item that an entry is.
local function content(fields)
  local texts = {}
  for i = 1, #fields, 2 do
    if fields[i] == field then return fields[i + 1] end
    table.insert(texts, encode(fields[i]) .. ':' .. encode(fields[i + 1]))
  end
  return #fields == 2 and fields[2] or '{' .. table.concat(texts, ',') .. '}'
end

-- Takes the next item that is back, and what is known of it. One that is pending no more, or for another consumer, is
-- somebody else's.
local function popback(current)
  while true do
    local member = call('ZRANGE', back, 0, 0)[1]
    if not member then return nil end
    call('ZREM', back, member)
    local name = string.match(member, ':(.*)$')
    local m, bytes = load(name), call('HGET', items, name)
    forget(name, {})
    local entry, pending = entryof(m.s[1], current)
    local owned = pending and call('XPENDING', stream, group, entry, entry, 1)[1]
    if not pending or owned and owned[2] == CONSUMER then return bytes, m end
  end
end

-- Takes the next item, and what is known of it.
local current, drained, remembers
local function pop()
  if not current then
    if not position() then
      call('XGROUP', 'CREATE', stream, group, beginning(), 'MKSTREAM')
    end
    if call('XGROUP', 'CREATECONSUMER', stream, group, CONSUMER) == 1 then call('HINCRBY', state, 'consumers', 1) end
    current, remembers = generation(), call('EXISTS', past) == 1
  end
  if not drained then
    local bytes, m = popback(current)
    if bytes then return bytes, m end
    drained = true
  end
  local answer = call('XREADGROUP', 'GROUP', group, CONSUMER, 'COUNT', 1, 'STREAMS', stream, '>')
  if not answer then
    call('DEL', past) -- nothing is left that it could be about
    local last, lag = position()
    if lag and lag > 0 then -- entries that were trimmed before they were read are not counted as read
      local added = info(call('XINFO', 'STREAM', stream))['entries-added']
      call('XGROUP', 'SETID', stream, group, last, 'ENTRIESREAD', added)
    end
    return nil
  end
  local entry, fields = unpack(answer[1][2][1])
  notes.last = entry
  local known = remembers and call('HGET', past, entry)
  if known then call('HDEL', past, entry) end
  local m = known and decode(known) or {a = 0, f = 0, q = now}
  m.s = {current .. ':' .. entry}
  return content(fields), m
end

-- Rows of ready items as ops.list has them.
local function rows(skip, last)
  local found = {}
  local function show(m, bytes)
    table.insert(found, {m and m.id or '', m and encode(m) or '', {string.sub(bytes, 1, SHOWN)}, #bytes, ''})
  end
  for _, member in ipairs(call('ZRANGE', back, skip, last)) do
    local name = string.match(member, ':(.*)$')
    show(load(name), call('HGET', items, name))
  end
  local before = call('ZCARD', back)
  skip, last = math.max(0, skip - before), last - before
  if last < skip then return found end
  local page = call('XRANGE', stream, '(' .. (position() or beginning()), '+', 'COUNT', last + 1)
  for i = skip + 1, #page do
    local known = call('HGET', past, page[i][1])
    show(known and decode(known), content(page[i][2]))
  end
  return found
end

-- What a claim needs to be allowed of the stream.
local commands = {
  {'XREADGROUP', 'GROUP', group, CONSUMER, 'COUNT', 1, 'STREAMS', stream, '>', key = stream},
  {'XGROUP', 'CREATE', stream, group, '0', 'MKSTREAM', key = stream},
  {'XGROUP', 'CREATECONSUMER', stream, group, CONSUMER, key = stream},
  {'XGROUP', 'SETID', stream, group, '0', key = stream}, {'XINFO', 'GROUPS', stream, key = stream},
  {'XINFO', 'STREAM', stream, key = stream}, {'XPENDING', stream, group, '-', '+', 1}, {'XACK', stream, group, '0-0'},
  {'XADD', stream, '*', 'f', 'v'}, {'XRANGE', stream, '-', '+'}, {'XLEN', stream}, {'EXISTS', stream},
  {'ZCARD', back}, {'ZADD', back, 0, ''}, {'ZREM', back, ''},
}
