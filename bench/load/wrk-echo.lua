-- Requests of exactly 64 bytes for an echo server: what is sent is a whole HTTP response, so what comes back,
-- byte by byte the same, is what wrk waits for. wrk insists on a real request once, when it looks at its first.
-- Argument: keep-alive, or close for a connection per exchange.

local function padded(connection)
  local head = "HTTP/1.1 200 OK\r\nConnection: " .. connection .. "\r\nContent-Length: "
  local rest = 64 - #head - #"\r\n\r\n"
  return head .. string.rep("0", rest) .. "\r\n\r\n"
end

function wrk.init(args)
  local request = padded(args[1] == "close" and "close" or "x")
  local isFirst = true
  wrk.request = function()
    local inspected = isFirst
    isFirst = false
    return inspected and "GET / HTTP/1.1\r\n\r\n" or request
  end
end

function done(summary, latency)
  local errors = summary.errors
  local points = {}
  for _, p in ipairs({ 50, 75, 90, 95, 99, 99.5, 99.9, 99.99 }) do
    points[#points + 1] = string.format("[%g,%d]", p, latency:percentile(p))
  end
  io.write(string.format(
    '\n{"requests":%d,"seconds":%.6f,"failures":%d,"latency":[%s]}\n',
    summary.requests, summary.duration / 1e6,
    errors.connect + errors.read + errors.write + errors.status + errors.timeout, table.concat(points, ",")))
end
