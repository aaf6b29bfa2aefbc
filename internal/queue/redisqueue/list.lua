-- Where the ready items of a list are.
--
-- A ready item is an element of the list and nothing else, so that whoever only knows the list sees it and may take it.
-- What goes back to the list leaves what is known of it behind in `past`, by the hash of its bytes: items of the same
-- bytes are the same to everybody.

-- How many elements are ready.
local function ready() return call('LLEN', queue) end

-- Puts an item to an end of the list. What is known of it waits in `past` if it matters.
local function put(id, m, command)
  local bytes = parts(id, m)
  if command == 'LPUSH' then
    for i = #bytes, 1, -1 do call('LPUSH', queue, bytes[i]) end
  else
    for i = 1, #bytes do call('RPUSH', queue, bytes[i]) end
  end
  if m.f > 0 or m.t or m.n then
    for i = 1, #bytes do
      local hash = redis.sha1hex(bytes[i])
      local known = call('HGET', past, hash)
      local memories = known and decode(known) or {}
      table.insert(memories, memory(m, #bytes == 1 and id or nil))
      call('HSET', past, hash, encode(memories))
    end
  end
  forget(id, m)
  if m.a > 0 then add('in', -#bytes) end -- it is taken off the list once more
end

-- Takes the element at the head of the list, and what is known of it.
local remembers
local function pop()
  local bytes = call('LPOP', queue)
  if not bytes then
    call('DEL', past) -- nothing is left that it could be about
    remembers = false
    return nil
  end
  if remembers == nil then remembers = call('EXISTS', past) == 1 end
  if remembers then
    local hash = redis.sha1hex(bytes)
    local known = call('HGET', past, hash)
    if known then
      local memories = decode(known)
      local its = table.remove(memories, 1)
      if #memories == 0 then call('HDEL', past, hash) else call('HSET', past, hash, encode(memories)) end
      return bytes, its
    end
  end
  return bytes
end

local function tohead(id, m) put(id, m, 'LPUSH') end
local function totail(id, m) put(id, m, 'RPUSH') end

-- Nothing is left to do at the list for an item that has ended.
local function over() end

-- Rows of ready items as ops.list has them.
local function rows(skip, last)
  local found = {}
  for _, e in ipairs(call('LRANGE', queue, skip, last)) do
    local known = call('HGET', past, redis.sha1hex(e))
    local its = known and decode(known)[1]
    table.insert(found, {its and its.id or '', its and encode(its) or '', {string.sub(e, 1, SHOWN)}, #e, ''})
  end
  return found
end

-- What a claim needs to be allowed of the list.
local commands = {{'LPOP', queue}, {'LPUSH', queue, ''}, {'RPUSH', queue, ''}, {'LLEN', queue}}
