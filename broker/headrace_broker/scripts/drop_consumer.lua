-- Deletes a consumer of a task stream, unless something is pending for it: DELCONSUMER would lose that for ever.
--
-- KEYS  1 task stream
-- ARGV  1 group   2 consumer
-- Returns 1 if the consumer is gone (or was never there), 0 if it holds something.
if redis.call('EXISTS', KEYS[1]) == 0 then return 1 end
local held = redis.pcall('XPENDING', KEYS[1], ARGV[1], '-', '+', '1', ARGV[2])
if held.err then
  if string.find(held.err, 'NOGROUP', 1, true) then return 1 end
  return redis.error_reply(held.err)
end
if #held > 0 then return 0 end
redis.call('XGROUP', 'DELCONSUMER', KEYS[1], ARGV[1], ARGV[2])
return 1
