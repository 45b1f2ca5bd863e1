-- Starts an instance: header, index and inbox entry in one step, so that it is durable, visible and signalable at once.
--
-- KEYS  1 header i:<id>   2 starts   3 status:queued   4 flow:<flow>   5 req:<request id>   6 archive prefix `a:`
--       7 definitions' counts   8 names of the large values l:<inc>
-- ARGV  1 id   2 incarnation   3 flow   4 definition   5 actor   6 traceparent   7 message   8 conflict (fail|use_existing)
--       9 answer's life (ms)   10 large value ('' if inline)   11 its key's name ('' if inline)
-- Returns {"started"|"existing"|"exists", incarnation, flow, status}.
local answered = redis.call('GET', KEYS[5])
if answered then return {'started', answered, ARGV[3], 'queued'} end
local header = redis.call('HMGET', KEYS[1], 'inc', 'status', 'flow')
if header[1] then
  local status = header[2]
  if status ~= 'completed' and status ~= 'failed' and status ~= 'cancelled' and status ~= 'terminated' then
    if ARGV[8] == 'use_existing' then return {'existing', header[1], header[3], status} end
    return {'exists', header[1], header[3], status}
  end
  redis.call('RENAME', KEYS[1], KEYS[6] .. header[1])
end
local time = redis.call('TIME')
local created = time[1] * 1000 + math.floor(time[2] / 1000)
local member = ARGV[2] .. ' ' .. ARGV[1]
redis.call('HSET', KEYS[1], 'inc', ARGV[2], 'flow', ARGV[3], 'def', ARGV[4], 'status', 'queued', 'created', string.format('%.0f', created), 'run', '1')
if ARGV[5] ~= '' then redis.call('HSET', KEYS[1], 'actor', ARGV[5]) end
if ARGV[6] ~= '' then redis.call('HSET', KEYS[1], 'trace', ARGV[6]) end
redis.call('ZADD', KEYS[3], string.format('%.0f', created), member)
redis.call('ZADD', KEYS[4], string.format('%.0f', created), member)
redis.call('HINCRBY', KEYS[7], ARGV[4], 1)
if ARGV[11] ~= '' then
  redis.call('SET', ARGV[11], ARGV[10])
  redis.call('SADD', KEYS[8], ARGV[11])
end
redis.call('XADD', KEYS[2], '*', 'm', ARGV[7])
redis.call('SET', KEYS[5], ARGV[2], 'PX', ARGV[9])
return {'started', ARGV[2], ARGV[3], 'queued'}
