# Calls the backend's functions for tests: a line of JSON in, a line of JSON out. One Julia for many calls, since it starts slowly.

import ChipsBackend
using ChipsBackend.Backend: ArtifactError, Backend, Config, PublishError, encode, object, parse_json
using Logging

function obtain(asked)
    artifact = Backend.obtain(
        Config(artifact = asked["artifact"], cache_dir = asked["cache_dir"]),
        environ = Dict{String,String}(asked["environ"]),
    )
    return object("folder" => artifact.folder, "digest" => artifact.digest, "address" => artifact.address)
end

function publish(asked)
    place = Backend.publish(
        asked["source"],
        model = asked["model"],
        version = asked["version"],
        store = asked["store"],
        signature = asked["signature"],
        samples = asked["samples"],
        by = "ana",
        environ = Dict{String,String}(asked["environ"]),
    )
    return object("address" => place)
end

global_logger(Backend.CloudLogger(stderr))
for line in eachline(stdin)
    asked = parse_json(line)
    answer = try
        asked["call"] == "obtain" ? obtain(asked) : publish(asked)
    catch error
        code = error isa ArtifactError ? error.exit_code : error isa PublishError ? 1 : -1
        object("error" => sprint(showerror, error), "exit_code" => code)
    end
    println(stdout, String(encode(answer)))
    flush(stdout)
end
