// The one Lua script that takes leases of shared limits (gateway/core/lease_book.h says what for).
// It reads the time of the Redis server only, and writes two keys:
//
//   KEYS[1]  a limit: a hash of gateway id -> "UNTIL ROOM PERIOD SESSION CHARGES". UNTIL: when ROOM
//            (and of concurrency CHARGES) is void, ms; of minutes it then counts as charged.
//            PERIOD: the day or month of CHARGES. CHARGES: of minutes "SECOND:AMOUNT ...", else one
//            amount. And of "short" -> when rooms need not be small any longer, ms.
//   KEYS[2]  "RUN START": the server's run_id and when this script first met it, ms. With another
//            run_id, or none, data may be missing: for one lease time nothing is granted.
//
//   ARGV     gateway, class (m: minute, p: day or month, c: concurrency), period, limit, kept,
//            least, most, want, mode (l: leased, s: synchronous), lease_ms, ttl_ms, run_id,
//            charges (of minutes "AGE_MS:AMOUNT ...", else one amount), session: the server's
//            time when the gateway connected, us. What an earlier connection left on the way is
//            refused: STALE
//   answer   "START SETTLING_MS GRANTED OTHERS RETRY_MS SHORT". RETRY_MS: when the largest need
//            fits, for whoever got too little; -1 where only the end of the period helps
//
// Amounts are whole numbers up to 2^53: Lua's numbers are exact up to there.
// tests/support/naive_quota_store.h says the same as plain values, and a test compares the two.
#pragma once

#include <string_view>

namespace sluice::gw {

inline constexpr std::string_view kQuotaScript = R"lua(
local time = redis.call('TIME')
local second = tonumber(time[1])
local now = second * 1000 + math.floor(time[2] / 1000)
local gateway, class, period = ARGV[1], ARGV[2], tonumber(ARGV[3])
local limit, kept, least = tonumber(ARGV[4]), tonumber(ARGV[5]), tonumber(ARGV[6])
local most, want, mode = tonumber(ARGV[7]), tonumber(ARGV[8]), ARGV[9]
local lease, run_id, told, session = tonumber(ARGV[10]), ARGV[12], ARGV[13], tonumber(ARGV[14])
local function whole(number) return string.format('%.0f', number) end

local run, start = string.match(redis.call('GET', KEYS[2]) or '', '^(%S+) (%d+)$')
start = tonumber(start)
if run ~= run_id or start > now then
  start = now
  redis.call('SET', KEYS[2], run_id .. ' ' .. whole(now))
end
local settling = math.max(start + lease - now, 0)

local known = redis.call('HGET', KEYS[1], gateway)
if known and tonumber(string.match(known, '^%d+ %d+ %d+ (%d+) ') or 0) > session then
  return redis.error_reply('STALE a later connection has reported')
end

local others, rooms, short_until = 0, 0, 0
local seconds = {}
local fields = redis.call('HGETALL', KEYS[1])
for i = 1, #fields, 2 do
  if fields[i] == 'short' then
    short_until = tonumber(fields[i + 1])
  elseif fields[i] ~= gateway then
    local void_at, room, label, charges =
        string.match(fields[i + 1], '^(%d+) (%d+) (%d+) %d+ (.*)$')
    if not void_at then return redis.error_reply('QUOTA an entry cannot be read') end
    void_at, room, label = tonumber(void_at), tonumber(room), tonumber(label)
    local alive, charged = void_at > now, 0
    if class == 'm' then
      for at, amount in string.gmatch(charges, '(%d+):(%d+)') do
        at, amount = tonumber(at), tonumber(amount)
        if second - at < 61 then
          charged = charged + amount
          seconds[at] = (seconds[at] or 0) + amount
        end
      end
      local ended = math.floor(void_at / 1000)
      if not alive and room > 0 and second - ended < 61 then
        charged = charged + room
        seconds[ended] = (seconds[ended] or 0) + room
      end
    elseif class == 'p' then
      if label >= period then charged = tonumber(charges) end
    elseif alive then
      charged = tonumber(charges)
    end
    local held = alive and room or 0
    rooms = rooms + held
    others = others + held + charged
    if not alive and charged == 0 and (class ~= 'p' or label < period - 1) then
      redis.call('HDEL', KEYS[1], fields[i])
    end
  end
end

local charged, own = 0, {}
if class == 'm' then
  for age, amount in string.gmatch(told, '(%d+):(%d+)') do
    local at = math.floor((now - age) / 1000)
    amount = tonumber(amount)
    charged = charged + amount
    own[at] = (own[at] or 0) + amount
    seconds[at] = (seconds[at] or 0) + amount
  end
else
  charged = tonumber(told)
end

local free = limit - others - charged - kept
local short = short_until > now
local granted = 0
if settling == 0 and free > 0 and free >= least and (least > 0 or not short) then
  granted = math.min(want, free)
end
local retry = 0
if settling == 0 and granted < want then
  local missing = most - (free - granted)
  retry = -1
  if class == 'm' then
    retry = (second + 62) * 1000 - now  -- whatever is charged by now is free then
    local order, sum = {}, 0
    for at in pairs(seconds) do order[#order + 1] = at end
    table.sort(order)
    for _, at in ipairs(order) do
      sum = sum + seconds[at]
      if sum >= missing then
        retry = math.max((at + 61) * 1000 - now, 1)
        break
      end
    end
  end
  if rooms >= missing or class == 'c' then
    retry = retry < 0 and 1000 or math.min(retry, 1000)
  end
  if rooms > 0 and granted < most then
    short = true
    redis.call('HSET', KEYS[1], 'short', whole(now + 2000))
  end
end

local room = kept
if mode == 'l' then
  room = kept + granted
elseif class == 'm' then
  if granted > 0 then own[second + 1] = (own[second + 1] or 0) + granted end
else
  charged = charged + granted
end
local parts = {}
if class == 'm' then
  for at, amount in pairs(own) do parts[#parts + 1] = whole(at) .. ':' .. whole(amount) end
elseif charged > 0 then
  parts[1] = whole(charged)
end
if room > 0 or #parts > 0 then
  local holds = room > 0 or class == 'c'
  redis.call('HSET', KEYS[1], gateway, whole(holds and now + lease or 0) .. ' ' .. whole(room) ..
             ' ' .. whole(period) .. ' ' .. whole(session) .. ' ' .. (parts[1] and table.concat(parts, ' ') or '0'))
else
  redis.call('HDEL', KEYS[1], gateway)
end
redis.call('PEXPIRE', KEYS[1], ARGV[11])
return whole(start) .. ' ' .. whole(settling) .. ' ' .. whole(granted) .. ' ' .. whole(others) ..
       ' ' .. whole(retry) .. ' ' .. (short and '1' or '0')
)lua";

}  // namespace sluice::gw
