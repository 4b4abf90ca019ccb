-- wrk: a POST with the head that a service behind a cloud load balancer sees. BODY_BYTES, API_KEY and CALLER come from outside.
local size = tonumber(os.getenv("BODY_BYTES"))
wrk.method = "POST"
wrk.body = '{"inputs":"' .. string.rep("x", math.max(0, size - 13)) .. '"}'
wrk.headers["Host"] = "gateway-abcdefghij-uc.a.run.app"
wrk.headers["User-Agent"] = "python-requests/2.32.3"
wrk.headers["Accept"] = "*/*"
wrk.headers["Accept-Encoding"] = "gzip, deflate, br"
wrk.headers["Content-Type"] = "application/json"
wrk.headers["X-Api-Key"] = os.getenv("API_KEY")
wrk.headers["X-Forwarded-For"] = os.getenv("CALLER")
wrk.headers["X-Forwarded-Proto"] = "https"
wrk.headers["traceparent"] = "00-105445aa7843bc8bf206b12000100000-0000000000000001-00"
function done(summary, latency)
  local e = summary.errors
  print(string.format('JSON {"requests":%d,"duration_us":%d,"p50_us":%d,"p99_us":%d,"p999_us":%d,"refused":%d,"failed":%d}',
    summary.requests, summary.duration, latency:percentile(50), latency:percentile(99), latency:percentile(99.9),
    e.status, e.connect + e.read + e.write + e.timeout))
end
