-- Makes a definition the current one of its flow, unless a higher version is.
--
-- KEYS  1 flow:<name>
-- ARGV  1 version   2 definition's hash   3 JSON schema of the input ('' if unknown)
--       4 its retention ('' for the orchestrator's)
-- Returns {1, version} if it is the current one now, {0, the higher version} if not.
local version = redis.call('HGET', KEYS[1], 'version')
if version and tonumber(version) > tonumber(ARGV[1]) then return {0, version} end
redis.call('HSET', KEYS[1], 'version', ARGV[1], 'hash', ARGV[2], 'schema', ARGV[3], 'retention', ARGV[4])
return {1, ARGV[1]}
