-- Takes a member out of a sorted set, unless its score has changed.
--
-- KEYS  1 sorted set
-- ARGV  1 member   2 the score it had
-- Returns 1 if it is gone, 0 if it has another score now.
local score = redis.call('ZSCORE', KEYS[1], ARGV[1])
if score and tonumber(score) ~= tonumber(ARGV[2]) then return 0 end
redis.call('ZREM', KEYS[1], ARGV[1])
return 1
