-- The operations.

-- What is given up and kept, or not kept.
local function bury(id, m)
  over(m)
  save(id, m)
  call('ZADD', dead, now, id)
  add('buried', 1)
end

local function drop(id, m)
  forget(id, m)
  over(m)
  add('dropped', 1)
end

-- Ends a claim whose lease is over; false when that was the item's last attempt.
local function lose(id, m)
  local most, dropped = m.x, m.d
  fail(m, encode({reason = 'LeaseLost', message = 'the runner ' .. m.o .. ' did not renew its lease in time', at = now}))
  unclaim(id, m)
  if most and m.f >= most then
    if dropped then drop(id, m) else bury(id, m) end
    return false
  end
  tohead(id, m)
  return true
end

local function sweep()
  local returned, buried = 0, 0
  -- What was delayed arrives now. What comes back is ahead of it, and at the head is what was claimed before.
  for _, id in ipairs(call('ZRANGEBYSCORE', delayed, '-inf', now, 'LIMIT', 0, SWEEP)) do
    unschedule(delayed, id)
    totail(id, load(id))
    returned = returned + 1
  end
  local waited = call('ZRANGEBYSCORE', due, '-inf', now, 'LIMIT', 0, SWEEP)
  for i = #waited, 1, -1 do
    unschedule(due, waited[i])
    tohead(waited[i], load(waited[i]))
    returned = returned + 1
  end
  local ids = call('ZRANGEBYSCORE', leases, '-inf', now, 'LIMIT', 0, SWEEP)
  local start = #ids > 0 and started()
  table.sort(ids)
  for i = #ids, 1, -1 do
    local m = load(ids[i])
    if start and m.c < start then
      spared = start + GRACE
    elseif lose(ids[i], m) then
      returned = returned + 1
    else
      buried = buried + 1
    end
  end
  return returned, buried
end

-- Notes from time to time how many items have arrived and are done, for the rates and the age of the head.
local function sample()
  local last = call('HGET', state, 'sampled')
  if last and now - tonumber(last) < SAMPLE and now >= tonumber(last) then return end
  local text = call('HGET', state, 'samples')
  local samples = text and decode(text) or {}
  local totals = call('HMGET', state, 'in', 'out')
  local arrived = (tonumber(totals[1]) or 0) + (added['in'] or 0) + ready()
  table.insert(samples, {now, arrived, (tonumber(totals[2]) or 0) + (added.out or 0)})
  if #samples > SAMPLES then table.remove(samples, 1) end
  call('HSET', state, 'sampled', now, 'samples', encode(samples))
end

-- What a run of the script has changed stays changed when a later command of it is denied. So before the first item is
-- taken, all rights are asked for (as far as the server can tell: since Redis 7).
local function denied()
  if not redis.acl_check_cmd then return nil end
  for _, command in ipairs({
    {'EXISTS', past}, {'DEL', past}, {'HGET', meta, ''}, {'HMGET', items, ''}, {'HSET', items, '', ''},
    {'HDEL', items, ''}, {'HINCRBY', state, '', 0}, {'ZADD', leases, 0, ''}, {'ZREM', leases, ''}, {'ZRANGE', due, 0, 0},
    {'ZRANGEBYSCORE', due, 0, 0}, {'GET', wake}, {'SET', wake, ''},
  }) do
    table.insert(commands, command)
  end
  for _, command in ipairs(commands) do
    if not redis.acl_check_cmd(unpack(command)) then return command end
  end
end

local ops = {}

-- owner, most, holds (0: any), parts, bytes (0: any), lease (0: none), attempts (0: any), drop (0 or 1)
function ops.claim()
  local command = denied()
  if command then
    return redis.error_reply('NOPERM the user may not use ' .. command[1] .. ' on the key ' .. (command.key or command[2]))
  end
  local owner, most, holds, size = ARGV[3], tonumber(ARGV[4]), tonumber(ARGV[5]), tonumber(ARGV[6])
  local bytes, lease, attempts = tonumber(ARGV[7]), tonumber(ARGV[8]), tonumber(ARGV[9])
  sweep()
  local held = (tonumber(call('HGET', state, 'o:' .. owner)) or 0) + (added['o:' .. owner] or 0)
  if holds > 0 then most = math.min(most, holds - held) end
  local claims, total = {}, 0
  while #claims < most and (bytes == 0 or total < bytes) do
    local element, known = pop()
    if not element then break end
    local m = known or {a = 0, f = 0, q = now}
    local id = m.id
    m.id = nil
    local elements = {element}
    total = total + #element
    while #elements < size and (bytes == 0 or total < bytes) do
      local another, its = pop()
      if not another then break end
      table.insert(elements, another)
      total = total + #another
      if its then
        m.a, m.f, m.q, m.t = math.max(m.a, its.a), math.max(m.f, its.f), math.min(m.q, its.q), its.t or m.t
        m.e1, m.e2 = m.e1 or its.e1, its.e2 or m.e2
        if its.s then table.insert(m.s, its.s[1]) end
      end
    end
    if not id or #elements > 1 then id = newid() end
    m.a, m.o, m.c = m.a + 1, owner, now
    if #elements > 1 then m.p = #elements end
    if lease > 0 then
      m.l = 1
      if attempts > 0 then m.x = attempts end
      if ARGV[10] == '1' then m.d = 1 end
      schedule(leases, now + lease, id)
    end
    for i, e in ipairs(elements) do call('HSET', items, part(id, i), e) end
    local text = encode(m)
    call('HSET', meta, id, text)
    call('ZADD', claimed, 0, id)
    add('in', #elements)
    table.insert(claims, {id, text, elements})
  end
  add('o:' .. owner, #claims)
  sample()
  return {untilnext(), ready(), claims}
end

-- id, attempt, verb, wait, failure; again and again
function ops.settle()
  local held, back = {}, {}
  for i = 3, #ARGV, 5 do
    local id, verb, failure = ARGV[i], ARGV[i + 2], ARGV[i + 4]
    local m = load(id)
    if not m or not m.o or m.a ~= tonumber(ARGV[i + 1]) then
      table.insert(held, 0)
    else
      table.insert(held, 1)
      unclaim(id, m)
      if failure ~= '' then fail(m, failure) end
      if verb == 'ack' then
        forget(id, m)
        over(m)
        add('out', m.p or 1)
        add('done', 1)
      elseif verb == 'retry' then
        m.n = 1 -- whoever looks sees it wait; it comes back as the same item, also if that was no failure
        save(id, m)
        schedule(due, now + tonumber(ARGV[i + 3]), id)
      elseif verb == 'bury' then
        bury(id, m)
      elseif verb == 'drop' then
        drop(id, m)
      elseif verb == 'release' then
        call('HDEL', meta, id) -- the same claim may be settled twice at once
        table.insert(back, {id, m})
      else
        return redis.error_reply('ERR unknown verb ' .. verb)
      end
    end
  end
  table.sort(back, function(a, b) return a[1] > b[1] end)
  for _, entry in ipairs(back) do tohead(entry[1], entry[2]) end
  sample()
  return held
end

-- id, attempt, lease
function ops.extend()
  local m = load(ARGV[3])
  if not m or not m.l or m.a ~= tonumber(ARGV[4]) then return 0 end
  schedule(leases, now + tonumber(ARGV[5]), ARGV[3])
  return 1
end

function ops.sweep()
  local returned, buried = sweep()
  return {returned, buried, untilnext()}
end

-- owner (empty: all), after this id, at most so many
function ops.claims()
  local owner, after, most = ARGV[3], ARGV[4], tonumber(ARGV[5])
  local ids = call('ZRANGEBYLEX', claimed, after == '' and '-' or '(' .. after, '+', 'LIMIT', 0, most)
  local found = {}
  for _, id in ipairs(ids) do
    local text = call('HGET', meta, id)
    if owner == '' or decode(text).o == owner then table.insert(found, {id, text, {}}) end
  end
  return {ids[#ids] or '', found}
end

-- owner (empty: all)
function ops.release()
  local ids = call('ZREVRANGEBYLEX', claimed, '+', '-')
  local released = 0
  for _, id in ipairs(ids) do
    local m = load(id)
    if ARGV[3] == '' or m.o == ARGV[3] then
      unclaim(id, m)
      tohead(id, m)
      released = released + 1
    end
  end
  return released
end

-- delay (empty: none), at (empty: none), unique for (empty: not), items; the last key is the unique one
function ops.push()
  local at = ARGV[3] ~= '' and now + tonumber(ARGV[3]) or tonumber(ARGV[4])
  local unique = tonumber(ARGV[5])
  if unique then
    local holder = call('GET', KEYS[#KEYS])
    if holder then return {ready(), holder, {}} end
  end
  local ids = {}
  for i = 6, #ARGV do
    local id = newid()
    table.insert(ids, id)
    local m = {a = 0, f = 0, q = now, n = 1}
    call('HSET', items, id, ARGV[i])
    if at and at > now then
      save(id, m)
      schedule(delayed, at, id)
    else
      totail(id, m)
    end
  end
  if unique then call('SET', KEYS[#KEYS], ids[1], 'PX', unique) end
  sample()
  return {ready(), '', ids}
end

local function row(id, at, whole)
  local text = call('HGET', meta, id)
  local elements, size = parts(id, decode(text)), 0
  for i, e in ipairs(elements) do
    size = size + #e
    if not whole then elements[i] = string.sub(e, 1, SHOWN) end
  end
  return {id, text, elements, size, at}
end

-- state, skip, limit
function ops.list()
  local skip, last = tonumber(ARGV[4]), tonumber(ARGV[4]) + tonumber(ARGV[5]) - 1
  local found = {}
  if ARGV[3] == 'ready' then
    return rows(skip, last)
  elseif ARGV[3] == 'claimed' then
    for _, id in ipairs(call('ZRANGE', claimed, skip, last)) do
      table.insert(found, row(id, call('ZSCORE', leases, id) or ''))
    end
  else
    local entries = call('ZRANGE', ({retry = due, delayed = delayed, dead = dead})[ARGV[3]], skip, last, 'WITHSCORES')
    for i = 1, #entries, 2 do table.insert(found, row(entries[i], entries[i + 1])) end
  end
  return found
end

-- id
function ops.get()
  local id = ARGV[3]
  for name, key in pairs({retry = due, delayed = delayed, dead = dead}) do
    local at = call('ZSCORE', key, id)
    if at then return {name, row(id, at, true)} end
  end
  if call('ZSCORE', claimed, id) then return {'claimed', row(id, call('ZSCORE', leases, id) or '', true)} end
  return {'', {}}
end

-- ids, in the order in which they are to be at the head
function ops.revive()
  local revived = {}
  for i = #ARGV, 3, -1 do
    if call('ZREM', dead, ARGV[i]) == 1 then
      local m = load(ARGV[i])
      m.f = 0
      tohead(ARGV[i], m)
      table.insert(revived, 1, ARGV[i])
    end
  end
  return revived
end

-- ids
function ops.discard()
  local dropped = {}
  for i = 3, #ARGV do
    if call('ZREM', dead, ARGV[i]) == 1 then
      drop(ARGV[i], load(ARGV[i]))
      table.insert(dropped, ARGV[i])
    end
  end
  return dropped
end

function ops.stats()
  sample()
  local counters = call('HMGET', state, 'in', 'out', 'done', 'buried', 'dropped', 'samples')
  return {
    string.format('%.0f', now), ready(), call('ZCARD', delayed), call('ZCARD', claimed), call('ZCARD', leases),
    call('ZCARD', due), call('ZCARD', dead),
    tonumber(counters[1]) or 0, tonumber(counters[2]) or 0, tonumber(counters[3]) or 0, tonumber(counters[4]) or 0,
    tonumber(counters[5]) or 0, counters[6] or '[]',
  }
end

local reply = ops[ARGV[1]]()
finish()
return reply
