-- Meets all of the claims or none, or settles them: what gateway/state/memory.py does, in one round trip, by the server's clock.
--
-- KEYS: those that are claimed. ARGV: what several requests ask, as msgpack: {mode, claims} of each, the mode claim, left, settle or
-- seed; each claim as {number of its key, kind (rate, place or amount), limit, cost, period or lease in microseconds, holder, how long
-- to keep in milliseconds, used}. One after the other is answered, as if each had come by itself.
-- Answers, as msgpack, {refused, wait in microseconds, left, full in microseconds, left, full, ...} of each; refused counts from 1, 0
-- means that all were met.

local time = redis.call('TIME')
local now = time[1] * 1000000 + time[2]
local mode

local function whole(number)
    return string.format('%.0f', number)
end

local function claim_of(values)
    return {
        key = KEYS[values[1]], kind = values[2], limit = values[3], cost = values[4], span = values[5], holder = values[6],
        keep = values[7], used = values[8],
    }
end

local function share(claim, cost)
    return math.floor(cost * claim.span / claim.limit)
end

local function rate_left(claim, arrival)
    return math.max(0, math.floor((claim.span - math.max(0, arrival - now)) * claim.limit / claim.span))
end

local function set_rate(claim, arrival)
    if arrival > now then
        redis.call('SET', claim.key, whole(arrival), 'PX', whole(math.ceil((arrival - now) / 1000)))
    else
        redis.call('DEL', claim.key)
    end
end

local function held(claim)
    redis.call('ZREMRANGEBYSCORE', claim.key, '-inf', whole(now))
    return redis.call('ZCARD', claim.key)
end

-- A budget is a hash of what is spent and reserved, the amounts of the holders, and the ends of their leases.
local function give_back(claim, holder)
    local amount = redis.call('HGET', claim.key .. ':amounts', holder)
    if amount then
        redis.call('HDEL', claim.key .. ':amounts', holder)
        redis.call('ZREM', claim.key .. ':leases', holder)
        redis.call('HINCRBY', claim.key, 'reserved', '-' .. amount)
    end
end

local function taken(claim)
    for _, holder in ipairs(redis.call('ZRANGEBYSCORE', claim.key .. ':leases', '-inf', whole(now))) do
        give_back(claim, holder)
    end
    local found = redis.call('HMGET', claim.key, 'spent', 'reserved')
    return (tonumber(found[1]) or 0) + (tonumber(found[2]) or 0)
end

local function keep(claim)
    for _, key in ipairs({claim.key, claim.key .. ':amounts', claim.key .. ':leases'}) do
        if redis.call('PTTL', key) < claim.keep then
            redis.call('PEXPIRE', key, whole(claim.keep))
        end
    end
end

-- Returns what is left now, when all of it is there again, and the state from which that was told.
local function look(claim)
    if claim.kind == 'rate' then
        local arrival = tonumber(redis.call('GET', claim.key)) or 0
        return rate_left(claim, arrival), math.max(0, arrival - now), arrival
    elseif claim.kind == 'place' then
        local places = held(claim)
        return math.max(0, claim.limit - places), 0, places
    end
    local budget = taken(claim)
    return math.max(0, claim.limit - budget), 0, budget
end

-- Returns in how many microseconds the claim can be met, -1 if nobody can say, nothing if it can be met now.
local function unmet(claim, state)
    if claim.kind == 'rate' then
        local wait = math.max(state, now) + share(claim, math.min(claim.cost, claim.limit)) - now - claim.span
        return wait > 0 and wait or nil
    elseif claim.kind == 'place' then
        return state >= claim.limit and -1 or nil
    end
    local rest = claim.limit - state
    return (rest <= 0 or rest < claim.cost) and -1 or nil
end

-- Takes what is claimed, unless only looking, and returns what is left then.
local function meet(claim, state)
    if claim.kind == 'rate' then
        local arrival = math.max(state, now) + share(claim, math.min(claim.cost, claim.limit))
        if mode == 'claim' then set_rate(claim, arrival) end
        return rate_left(claim, arrival), arrival - now
    elseif claim.kind == 'place' then
        if mode == 'claim' then
            redis.call('ZADD', claim.key, whole(now + claim.span), claim.holder)
            redis.call('PEXPIRE', claim.key, whole(math.ceil(claim.span / 1000)))
        end
        return claim.limit - state - 1, 0
    end
    if mode == 'claim' then
        give_back(claim, claim.holder)
        redis.call('HINCRBY', claim.key, 'reserved', whole(claim.cost))
        redis.call('HSET', claim.key .. ':amounts', claim.holder, whole(claim.cost))
        redis.call('ZADD', claim.key .. ':leases', whole(now + claim.span), claim.holder)
        keep(claim)
    end
    return claim.limit - state - claim.cost, 0
end

local function settle(claim)
    if claim.kind == 'rate' then
        local arrival = tonumber(redis.call('GET', claim.key)) or now
        set_rate(claim, math.max(arrival + share(claim, claim.used) - share(claim, math.min(claim.cost, claim.limit)), now))
    elseif claim.kind == 'place' then
        redis.call('ZREM', claim.key, claim.holder)
    else
        give_back(claim, claim.holder)
        redis.call('HINCRBY', claim.key, 'spent', whole(claim.used))
        redis.call('PEXPIRE', claim.key, whole(claim.keep))
    end
end

local function seed(claim)
    if redis.call('HEXISTS', claim.key, 'spent') == 0 then
        redis.call('HSET', claim.key, 'spent', whole(claim.used))
        keep(claim)
    end
end

local function judge(claims)
    local answer, states = {0, 0}, {}
    for index, claim in ipairs(claims) do
        local left, full, state = look(claim)
        states[index] = state
        answer[1 + 2 * index] = left
        answer[2 + 2 * index] = full
        local wait = unmet(claim, state)
        if wait and answer[1] == 0 then
            answer[1] = index
            answer[2] = math.max(0, wait)
        end
    end
    if answer[1] == 0 then
        for index, claim in ipairs(claims) do
            local left, full = meet(claim, states[index])
            answer[1 + 2 * index] = left
            answer[2 + 2 * index] = full
        end
    end
    return answer
end

local answers = {}
for number, group in ipairs(cmsgpack.unpack(ARGV[1])) do
    mode = group[1]
    local claims = {}
    for index, values in ipairs(group[2]) do
        claims[index] = claim_of(values)
    end
    if mode == 'settle' or mode == 'seed' then
        for _, claim in ipairs(claims) do
            if mode == 'settle' then settle(claim) else seed(claim) end
        end
        answers[number] = {0, 0}
    else
        answers[number] = judge(claims)
    end
end
return cmsgpack.pack(answers)
