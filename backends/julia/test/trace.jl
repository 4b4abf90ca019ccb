using .Backend: Trace, read_trace

const TRACE, SPAN = "4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7"

@test read_trace(["TraceParent" => "00-$TRACE-$SPAN-01"]) == Trace(TRACE, SPAN, true)
@test read_trace(["traceparent" => "00-$TRACE-$SPAN-00"]) == Trace(TRACE, SPAN, false)
@test read_trace(["traceparent" => "cc-$TRACE-$SPAN-03-later"]) == Trace(TRACE, SPAN, true)
@test read_trace(Headers()) === nothing
const NOBODY, NOWHERE = repeat('0', 32), repeat('0', 16)
for wrong in ("", "xx", "ff-$TRACE-$SPAN-01", "00-$NOBODY-$SPAN-01", "00-$TRACE-$NOWHERE-01", "00-$TRACE-$SPAN-01\n")
    @test read_trace(["traceparent" => wrong, "X-Cloud-Trace-Context" => "$TRACE/1;o=1"]) === nothing
end
@test read_trace(["X-Cloud-Trace-Context" => "$(uppercase(TRACE))/255;o=1"]) == Trace(TRACE, "00000000000000ff", true)
@test read_trace(["X-Cloud-Trace-Context" => TRACE]) == Trace(TRACE, repeat('0', 16), false)
@test read_trace(["X-Cloud-Trace-Context" => "zz"]) === nothing
