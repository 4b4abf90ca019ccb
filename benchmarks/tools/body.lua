-- wrk: a POST with the body in the file BODY_FILE and the header lines in HEADERS.
local file = assert(io.open(os.getenv("BODY_FILE"), "rb"))
wrk.method = "POST"
wrk.body = file:read("*a")
file:close()
for name, value in os.getenv("HEADERS"):gmatch("([^:\n]+): ([^\n]*)") do wrk.headers[name] = value end
function done(summary, latency)
  local e = summary.errors
  print(string.format('JSON {"requests":%d,"duration_us":%d,"p50_us":%d,"p99_us":%d,"failed":%d}',
    summary.requests, summary.duration, latency:percentile(50), latency:percentile(99),
    e.status + e.connect + e.read + e.write + e.timeout))
end
