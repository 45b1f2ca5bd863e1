-- Makes an ended instance due for deletion, and tells the owner; once per request id.
--
-- KEYS  1 header i:<id>   2 events   3 req:<request id>   4 archive a:<inc> (any key of the slot if not asked for)
-- ARGV  1 message   2 answer's life (ms)   3 the incarnation to delete ('' for the newest)   4 id
--       5 prefix `retained:completed:`   6 prefix `retained:failed:`
-- Returns {"sent", incarnation} | {"unknown", ""} | {"live", status}
-- The first write needs no memory, so that a server that is out of memory lets it through (ADR 6).
local answered = redis.call('GET', KEYS[3])
if answered then return {'sent', answered} end
local header = redis.call('HMGET', KEYS[1], 'inc', 'status', 'flow')
if ARGV[3] ~= '' and header[1] ~= ARGV[3] then header = redis.call('HMGET', KEYS[4], 'inc', 'status', 'flow') end
if not header[1] then return {'unknown', ''} end
local status, retained = header[2], nil
if status == 'completed' or status == 'cancelled' then retained = ARGV[5] .. header[3] end
if status == 'failed' or status == 'terminated' then retained = ARGV[6] .. header[3] end
if not retained then return {'live', status} end
redis.call('DEL', KEYS[3])
redis.call('ZADD', retained, 0, header[1] .. ' ' .. ARGV[4])
redis.call('XADD', KEYS[2], '*', 'm', ARGV[1], 'inc', header[1], 'flow', header[3], 'status', status)
redis.call('SET', KEYS[3], header[1], 'PX', ARGV[2])
return {'sent', header[1]}
