using .Backend: CloudLogger, Trace, log_fields
using .Backend.StrictJSON: parse_json

function lines(action)
    io = IOBuffer()
    with_logger(action, CloudLogger(io, Dict{String,Any}("model" => "wine")))
    return [parse_json(line) for line in split(chomp(String(take!(io))), '\n')]
end

@testset "one object a line, whatever is logged" begin
    logged = lines() do
        @info "two\nlines" count = 1 ratio = NaN
        @debug "not this"
        try
            error("boom")
        catch error
            @error "bad" exception = (error, catch_backtrace())
        end
        @warn "careful" thing = Trace("a", "b", true)
    end
    @test [line["severity"] for line in logged] == ["INFO", "ERROR", "WARNING"]
    @test (logged[1]["message"], logged[1]["count"], logged[1]["ratio"], logged[1]["model"]) == ("two\nlines", 1, nothing, "wine")
    @test occursin("boom", logged[2]["stack"]) && occursin("logs.jl", logged[2]["stack"])
    @test occursin(r"^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z$", logged[1]["time"])
end

@testset "a task's fields are in each of its lines" begin
    line = only(lines() do
        task_local_storage(() -> (@info "hello"), :log_fields, log_fields(Trace("t", "s", true), "id-1", "proj"))
    end)
    @test line["logging.googleapis.com/trace"] == "projects/proj/traces/t"
    @test (line["logging.googleapis.com/spanId"], line["logging.googleapis.com/trace_sampled"], line["request_id"]) ==
          ("s", true, "id-1")
end
