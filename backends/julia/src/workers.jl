# Where predictions run: as many at once as was declared, each in a thread of its own, the rest waiting in a short line.

const WAITING_PER_SLOT = 16

"How many predictions can truly run at once: the threads beside the one that answers."
capacity() = has_own_pool() ? Threads.nthreads(:default) : max(Threads.nthreads() - 1, 1)

# From Julia 1.9, `-t N,1` makes one more thread that only answers; before, the first thread does, and the others predict.
@static if VERSION >= v"1.9"
    has_own_pool() = Threads.nthreads(:interactive) > 0
else
    has_own_pool() = false
end

"Run `action` in thread `number` of those that predict."
function start_in_thread(action, number)
    @static if VERSION >= v"1.9"
        has_own_pool() && return Threads.@spawn :default action()
    end
    task = Task(action)
    if Threads.nthreads() > 1
        task.sticky = true
        ccall(:jl_set_task_tid, Cvoid, (Any, Cint), task, number)  # threads count from 0 there, and 0 answers
    end
    return schedule(task)
end

const WAITING, RUNNING, GIVEN_UP = 0, 1, 2

struct Job
    action::Any
    state::Threads.Atomic{Int}
    asked::Float64
    deadline::Float64
    done::Channel{Any}
    log_fields::Dict{String,Any}
end

struct Outcome
    value::Any
    queue_s::Float64
    run_s::Float64
end

"What a job threw, and where."
struct Failed
    error::Any
    trace::Any
end

struct Workers
    concurrency::Int
    line::Channel{Job}
    unfinished::Threads.Atomic{Int}
end

function Workers(concurrency)
    workers = Workers(concurrency, Channel{Job}(Inf), Threads.Atomic{Int}(0))
    for number in 1:concurrency
        start_in_thread(() -> work(workers.line), number)
    end
    return workers
end

function work(line)
    for job in line
        Threads.atomic_cas!(job.state, WAITING, RUNNING) == WAITING || continue
        began = time()
        if began > job.deadline
            put!(job.done, too_late())
            continue
        end
        task_local_storage(:log_fields, job.log_fields)
        result = try
            value = Base.invokelatest(job.action)  # it may have been defined after this task began
            Outcome(value, began - job.asked, time() - began)
        catch error
            Failed(error, catch_backtrace())
        end
        put!(job.done, result)
    end
end

"""
The Outcome of `action()`, run by one of the workers. Problem where the line is full, or where `deadline` (of `time()`, or Inf)
came before a worker was free. What `action` throws comes out as Failed.
"""
function perform(action, workers::Workers; deadline = Inf)
    if Threads.atomic_add!(workers.unfinished, 1) >= workers.concurrency * (1 + WAITING_PER_SLOT)
        Threads.atomic_sub!(workers.unfinished, 1)
        throw(
            Problem(503, "overloaded", "all prediction slots are busy and the queue is full", "Retry-After" => "1"),
        )
    end
    fields = get(task_local_storage(), :log_fields, Dict{String,Any}())
    job = Job(action, Threads.Atomic{Int}(WAITING), time(), deadline, Channel{Any}(1), fields)
    timer = isfinite(deadline) ? Timer(_ -> give_up(job), max(deadline - time(), 0)) : nothing
    try
        put!(workers.line, job)
        result = take!(job.done)
        result isa Problem && throw(result)
        return result
    finally
        Threads.atomic_sub!(workers.unfinished, 1)
        timer === nothing || close(timer)
    end
end

function give_up(job)
    Threads.atomic_cas!(job.state, WAITING, GIVEN_UP) == WAITING || return
    put!(job.done, too_late())
end

too_late() = Problem(504, "deadline-exceeded", "the time allowed was over before a slot was free")
