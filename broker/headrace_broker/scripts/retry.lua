-- Puts a quarantined entry back into an inbox of its partition, once per request id; it leaves the quarantine with that.
--
-- KEYS  1 quarantine   2 inbox   3 req:<request id>   4 header i:<id> of a raw signal's instance (any key of the slot else)
-- ARGV  1 entry id   2 answer's life (ms)   3 message to append instead of the entry's own fields ('' for these)
-- Returns {"retried", new entry id} | {"gone", ""} | for a message also {"unknown", ""} | {"ended", status}.
local answered = redis.call('GET', KEYS[3])
if answered then return {'retried', answered} end
local found = redis.call('XRANGE', KEYS[1], ARGV[1], ARGV[1])
if #found == 0 then return {'gone', ''} end
local fields = {}
if ARGV[3] ~= '' then
  local header = redis.call('HMGET', KEYS[4], 'inc', 'status')
  if not header[1] then return {'unknown', ''} end
  local status = header[2]
  if status == 'completed' or status == 'failed' or status == 'cancelled' or status == 'terminated' or status == 'cancelling' then
    return {'ended', status}
  end
  fields = {'m', ARGV[3], 'inc', header[1]}
else
  local kept = found[1][2]
  for i = 1, #kept, 2 do
    if string.sub(kept[i], 1, 4) == 'raw:' then
      fields[#fields + 1] = string.sub(kept[i], 5)
      fields[#fields + 1] = kept[i + 1]
    end
  end
end
local entry = redis.call('XADD', KEYS[2], '*', unpack(fields))
redis.call('XDEL', KEYS[1], ARGV[1])
redis.call('SET', KEYS[3], entry, 'PX', ARGV[2])
return {'retried', entry}
