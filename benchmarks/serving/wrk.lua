-- wrk posts the file BODY with the headers HEADERS, one a line, and prints what it found as one line of JSON.
local file = assert(io.open(os.getenv("BODY"), "rb"))
wrk.method, wrk.body = "POST", file:read("*a")
file:close()
for name, value in string.gmatch(os.getenv("HEADERS"), "([^\n:]+): ([^\n]*)") do
  wrk.headers[name] = value
end

done = function(summary, latency)
  local errors = summary.errors
  print(string.format(
    '{"n_requests": %d, "seconds": %.6f, "p50_ms": %.3f, "p99_ms": %.3f, "n_refused": %d, "n_broken": %d}',
    summary.requests, summary.duration / 1e6, latency:percentile(50) / 1e3, latency:percentile(99) / 1e3,
    errors.status, errors.connect + errors.read + errors.write + errors.timeout))
end
