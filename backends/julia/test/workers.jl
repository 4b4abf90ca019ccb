using .Backend: Failed, Outcome, Problem, Workers, is_stuck, perform

"Tasks that keep the workers busy until `release`; they run already."
function busy(workers, release)
    running = Channel{Nothing}(workers.concurrency)
    tasks = [@async perform(() -> (put!(running, nothing); wait(release)), workers) for _ in 1:workers.concurrency]
    foreach(_ -> take!(running), tasks)
    return tasks
end
"What the caller of `action` is told, which began before its deadline and still runs. On a busy machine it may take a while to begin."
function overdue(action, workers; allowed_s = 0.05)
    told = try
        perform(action, workers, deadline = time() + allowed_s)
    catch error
        error
    end
    occursin("before the prediction ended", told.detail) && return told
    return overdue(action, workers, allowed_s = 2 * allowed_s)
end
refused_by(workers; deadline) =
    try
        perform(() -> :ran, workers, deadline = deadline)
    catch error
        error
    end

@testset "what is done comes back, and what it throws" begin
    workers = Workers(1)
    @test perform(() -> 7, workers).value == 7
    failed = perform(() -> error("boom"), workers)
    @test failed isa Failed && failed.error == ErrorException("boom")
    @test perform(() -> 8, workers).value == 8
end

@testset "who waits too long is refused, and the line stays short" begin
    workers, release = Workers(1), Base.Event()
    first_one = busy(workers, release)
    late = refused_by(workers, deadline = time() - 1)
    @test late isa Problem && (late.status, late.code) == (504, "deadline-exceeded")
    soon = refused_by(workers, deadline = time() + 0.01)
    @test soon isa Problem && soon.status == 504
    waiting = [@async perform(() -> :ran, workers) for _ in 1:16]
    while length(workers.line) < 16
        yield()
    end
    full = refused_by(workers, deadline = Inf)
    @test full isa Problem && (full.status, full.code) == (503, "overloaded")
    @test full.headers == ["Retry-After" => "1"]
    notify(release)
    @test all(task -> fetch(task) isa Outcome, [first_one; waiting])
    @test perform(() -> :ran, workers).value == :ran
end

@testset "who gave up leaves nothing behind" begin
    workers, release = Workers(1), Base.Event()
    first_one = busy(workers, release)
    for _ in 1:100
        @test refused_by(workers, deadline = time() + 0.001).status == 504
    end
    @test isempty(workers.line)
    notify(release)
    @test all(task -> fetch(task) isa Outcome, first_one)
end

@testset "what still runs at its deadline is told, and frees its slot when it ends" begin
    workers, release, ended = Workers(1), Base.Event(), Base.Event()
    late = overdue(() -> (wait(release); notify(ended)), workers)
    @test late.status == 504
    @test is_stuck(workers)
    notify(release)
    wait(ended)
    @test perform(() -> :ran, workers).value == :ran
    @test !is_stuck(workers)
    close(workers)
end
