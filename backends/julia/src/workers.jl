# Where predictions run: as many at once as was declared, each in a thread of its own, the rest waiting in a short line.

const WAITING_PER_SLOT = 16

"How many predictions can truly run at once: the threads next to the one that answers (`-t N,1`)."
capacity() = Threads.nthreads(:interactive) > 0 ? Threads.nthreads(:default) : max(Threads.nthreads(:default) - 1, 1)

"Run `action` in one of the threads that predict."
start_in_thread(action) = Threads.@spawn :default action()

@enum JobState WAITING RUNNING OVERDUE DONE

mutable struct Job
    action::Any  # nothing once it is over: the waiter for the slot must not keep the rows of those who left
    state::JobState
    asked::Float64
    deadline::Float64
    done::Channel{Any}
    log_fields::Dict{String,Any}
    logger::AbstractLogger
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

"`line` and the states of jobs are changed under `turn` alone."
mutable struct Workers
    concurrency::Int
    line::Vector{Job}
    turn::Threads.Condition
    running::Int
    overdue::Int  # of those that run: their callers have been told that it took too long
    closed::Bool
end

function Workers(concurrency)
    workers = Workers(concurrency, Job[], Threads.Condition(), 0, 0, false)
    foreach(_ -> start_in_thread(() -> work(workers)), 1:concurrency)
    return workers
end

"No more jobs: the workers end."
function Base.close(workers::Workers)
    lock(workers.turn) do
        workers.closed = true
        notify(workers.turn, all = true)
    end
end

"Whether every slot is held by work that nobody waits for any more."
is_stuck(workers::Workers) = lock(() -> workers.overdue >= workers.concurrency, workers.turn)

"The next job whose deadline has not passed; it runs from now on. Nothing when there will be no more."
function next_job!(workers::Workers)
    lock(workers.turn) do
        while true
            while isempty(workers.line) && !workers.closed
                wait(workers.turn)
            end
            workers.closed && return nothing
            job = popfirst!(workers.line)
            if time() > job.deadline
                leave_line!(job)
                continue
            end
            job.state = RUNNING
            workers.running += 1
            return job
        end
    end
end

function leave_line!(job::Job)
    job.state, job.action = DONE, nothing
    put!(job.done, Problem(504, "deadline-exceeded", "the time allowed was over before a slot was free"))
end

function work(workers::Workers)
    while (job = next_job!(workers)) !== nothing
        result = run(job)
        lock(workers.turn) do
            workers.running -= 1
            job.state == OVERDUE && (workers.overdue -= 1)
            job.state == RUNNING && put!(job.done, result)
            job.state, job.action = DONE, nothing
        end
    end
end

function run(job::Job)
    began = time()
    task_local_storage(:log_fields, job.log_fields)
    try
        value = with_logger(() -> Base.invokelatest(job.action), job.logger)  # it may have been defined after this task began
        return Outcome(value, began - job.asked, time() - began)
    catch error
        return Failed(error, catch_backtrace())
    end
end

"""
The Outcome of `action()`, run by one of the workers. Problem where the line is full, or where `deadline` (of `time()`, or Inf)
came before the end. What `action` throws comes out as Failed.
"""
function perform(action, workers::Workers; deadline = Inf)
    fields = get(task_local_storage(), :log_fields, Dict{String,Any}())
    job = Job(action, WAITING, time(), deadline, Channel{Any}(1), fields, current_logger())
    lock(workers.turn) do
        length(workers.line) + workers.running < workers.concurrency * (1 + WAITING_PER_SLOT) ||
            throw(Problem(503, "overloaded", "all prediction slots are busy and the queue is full", "Retry-After" => "1"))
        push!(workers.line, job)
        notify(workers.turn, all = false)
    end
    timer = isfinite(deadline) ? Timer(_ -> give_up(workers, job), max(deadline - time(), 0)) : nothing
    try
        result = take!(job.done)
        result isa Problem && throw(result)
        return result
    finally
        timer === nothing || close(timer)
    end
end

"The caller is told that it took too long. A job that waits leaves the line; one that runs goes on, since no thread can be ended."
function give_up(workers::Workers, job::Job)
    lock(workers.turn) do
        if job.state == WAITING
            filter!(other -> other !== job, workers.line)
            leave_line!(job)
        elseif job.state == RUNNING
            job.state = OVERDUE
            workers.overdue += 1
            put!(job.done, Problem(504, "deadline-exceeded", "the time allowed was over before the prediction ended"))
        end
    end
end
