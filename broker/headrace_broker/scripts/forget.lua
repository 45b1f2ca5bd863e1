-- Deletes ended instances for everybody at once: header, index, count. What is keyed by their incarnation is freed later.
--
-- KEYS  1 meta   2 purge   3 definitions' counts   4 flow:<flow>   5 retained:<class>:<flow>
-- ARGV  1 owner's token   2 header prefix `i:`   3 archive prefix `a:`   4 status prefix `status:`   5… members of KEYS 5
-- Returns {how many are deleted, how many had not ended} | nil: another owner has the partition. A member that has not
-- ended only leaves KEYS 5. Frees before it adds: a server that is out of memory lets it through then (ADR 6).
if redis.call('HGET', KEYS[1], 'token') ~= ARGV[1] then return false end
redis.call('SISMEMBER', KEYS[2], '')
redis.call('HEXISTS', KEYS[3], '')
redis.call('ZCARD', KEYS[4])
local deleted, live = 0, 0
for place = 5, #ARGV do
  local member = ARGV[place]
  local space = string.find(member, ' ', 1, true) or #member + 1
  local incarnation, id = string.sub(member, 1, space - 1), string.sub(member, space + 1)
  local key = ARGV[2] .. id
  local header = redis.pcall('HMGET', key, 'inc', 'status', 'def')  -- a strange hand's key must not stop the others
  if header[1] ~= incarnation then
    key = ARGV[3] .. incarnation
    header = redis.pcall('HMGET', key, 'inc', 'status', 'def')
  end
  local status = header[2]
  local ended = status == 'completed' or status == 'failed' or status == 'cancelled' or status == 'terminated'
  redis.call('ZREM', KEYS[5], member)
  if header[1] and not ended then
    live = live + 1
  else
    redis.call('ZREM', KEYS[4], member)
    if not header[1] then  -- gone, or not to be read: it may stand in any of them
      for _, each in ipairs({'completed', 'failed', 'cancelled', 'terminated'}) do redis.call('ZREM', ARGV[4] .. each, member) end
    else
      redis.call('ZREM', ARGV[4] .. status, member)
      redis.call('DEL', key)
      if header[3] and redis.call('HINCRBY', KEYS[3], header[3], -1) <= 0 then redis.call('HDEL', KEYS[3], header[3]) end
    end
    redis.call('SADD', KEYS[2], incarnation)
    deleted = deleted + 1
  end
end
return {deleted, live}
