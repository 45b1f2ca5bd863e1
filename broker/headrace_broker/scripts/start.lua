-- Starts instances of one flow: header, index and inbox entry of each in one step, so that it is durable, visible and
-- signalable at once.
--
-- KEYS  1 starts   2 status:queued   3 flow:<flow>   4 archive prefix `a:`   5 definitions' counts
--       then for each instance: header i:<id>, req:<request id>, names of its large values l:<inc>
-- ARGV  1 flow   2 definition   3 actor   4 traceparent   5 conflict (fail|use_existing)   6 answer's life (ms)
--       then for each instance: id, incarnation, message, large value ('' if inline), its key's name ('' if inline)
-- Returns for each instance {"started"|"existing"|"exists", incarnation, flow, status}.
local flow, definition, actor, trace, conflict, life = ARGV[1], ARGV[2], ARGV[3], ARGV[4], ARGV[5], ARGV[6]
local time = redis.call('TIME')
local created = string.format('%.0f', time[1] * 1000 + math.floor(time[2] / 1000))

local function start(header_key, request_key, names_key, id, incarnation, message, large, large_key)
  local answered = redis.call('GET', request_key)
  if answered then return {'started', answered, flow, 'queued'} end
  local header = redis.call('HMGET', header_key, 'inc', 'status', 'flow')
  if header[1] then
    local status = header[2]
    if status ~= 'completed' and status ~= 'failed' and status ~= 'cancelled' and status ~= 'terminated' then
      if conflict == 'use_existing' then return {'existing', header[1], header[3], status} end
      return {'exists', header[1], header[3], status}
    end
  end
  -- First what needs memory: a full server lets a script go on that began with a write which needs none, as RENAME.
  redis.call('SET', request_key, incarnation, 'PX', life)
  if header[1] then redis.call('RENAME', header_key, KEYS[4] .. header[1]) end
  local member = incarnation .. ' ' .. id
  redis.call('HSET', header_key, 'inc', incarnation, 'flow', flow, 'def', definition, 'status', 'queued', 'created', created, 'run', '1')
  if actor ~= '' then redis.call('HSET', header_key, 'actor', actor) end
  if trace ~= '' then redis.call('HSET', header_key, 'trace', trace) end
  redis.call('ZADD', KEYS[2], created, member)
  redis.call('ZADD', KEYS[3], created, member)
  redis.call('HINCRBY', KEYS[5], definition, 1)
  if large_key ~= '' then
    redis.call('SET', large_key, large)
    redis.call('SADD', names_key, large_key)
  end
  redis.call('XADD', KEYS[1], '*', 'm', message)
  return {'started', incarnation, flow, 'queued'}
end

local answers = {}
for n = 1, (#KEYS - 5) / 3 do
  local key, argument = 2 + 3 * n, 2 + 5 * n
  answers[n] = start(KEYS[key + 1], KEYS[key + 2], KEYS[key + 3], ARGV[argument], ARGV[argument + 1], ARGV[argument + 2], ARGV[argument + 3], ARGV[argument + 4])
end
return answers
