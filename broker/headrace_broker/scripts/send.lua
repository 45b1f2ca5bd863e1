-- Appends a signal or a control to the events of a live instance, once per request id, if its definition may get it.
--
-- KEYS  1 header i:<id>   2 events   3 req:<request id>   4 large value's key (any key of the slot if inline)
--       5 names of the large values l:<inc> (any key of the slot if inline)
-- ARGV  1 message   2 answer's life (ms)   3 large value ('' if inline)   4 the incarnation in its key ('' if inline)
--       5 the definitions that may get it, by hash with spaces between; '*' for any
--       6 the only incarnation that is meant ('' for the newest)
-- Returns {"sent", incarnation} | {"unknown", ""} | {"ended", status} | {"moved", incarnation}: the id was used anew
-- since the caller read the incarnation for its large value; it asks again | {"refused", definition}: not one of ARGV 5 | {"superseded", incarnation}: not ARGV 6.
local answered = redis.call('GET', KEYS[3])
if answered then return {'sent', answered} end
local header = redis.call('HMGET', KEYS[1], 'inc', 'status', 'def')
if not header[1] then return {'unknown', ''} end
if ARGV[6] ~= '' and ARGV[6] ~= header[1] then return {'superseded', header[1]} end
local status = header[2]
if status == 'completed' or status == 'failed' or status == 'cancelled' or status == 'terminated' or status == 'cancelling' then
  return {'ended', status}
end
if ARGV[5] ~= '*' and not string.find(ARGV[5], header[3] or '', 1, true) then return {'refused', header[3]} end
if ARGV[4] ~= '' then
  if ARGV[4] ~= header[1] then return {'moved', header[1]} end
  redis.call('SET', KEYS[4], ARGV[3])
  redis.call('SADD', KEYS[5], KEYS[4])
end
redis.call('XADD', KEYS[2], '*', 'm', ARGV[1], 'inc', header[1])
redis.call('SET', KEYS[3], header[1], 'PX', ARGV[2])
return {'sent', header[1]}
