# What it costs the Julia backend to read a request and to write its answer, without a web server: julia benchmarks/backends/reading.jl
#
# Prints Markdown. The model costs next to nothing: y = 2x.

include("../../backends/julia/src/Backend.jl")
using .Backend: Signature, Tensor, encode, object, read_instances, table

const SIGNATURE = Signature([Tensor("x", "FP64", [-1]), Tensor("n", "INT32", [-1]), Tensor("k", "INT64", [-1])], [])
const ROWS = ("[1.5,2,3]", "{\"x\":0.1234567890123456,\"n\":2,\"k\":3}")
const TIMES = 300
const LARGE_BYTES = 31 * 2^20

function answer(body)
    rows = table(read_instances(body, SIGNATURE).rows)
    return encode(object("predictions" => 2 .* rows.x))
end

body_of(row, count) = "{\"instances\":[" * join(Iterators.repeated(row, count), ",") * "]}"

function measured(action)
    before = Base.gc_num()
    seconds = @elapsed action()
    return seconds, Base.GC_Diff(Base.gc_num(), before)
end

function main()
    println("| row | rows | ms (median) | p99 | KiB | allocations |\n|---|--:|--:|--:|--:|--:|")
    for row in ROWS, count in (1, 100, 1000)
        body = body_of(row, count)
        answer(body)
        taken = sort!([first(measured(() -> answer(body))) for _ in 1:TIMES]) .* 1000
        _, used = measured(() -> answer(body))
        ms(share) = round(taken[ceil(Int, share * TIMES)], digits = 3)
        println("| `$row` | $count | $(ms(0.5)) | $(ms(0.99)) | $(used.allocd >> 10) | $(Base.gc_alloc_count(used)) |")
    end
    println("\n| row | MiB | s | MiB for it | collections | s in them |\n|---|--:|--:|--:|--:|--:|")
    for row in ROWS
        body = body_of(row, LARGE_BYTES ÷ (sizeof(row) + 1))
        GC.gc()
        seconds, used = measured(() -> answer(body))
        collecting = round(used.total_time / 1e9, digits = 2)
        println("| `$row` | $(sizeof(body) >> 20) | $(round(seconds, digits = 2)) | $(used.allocd >> 20) | $(used.pause) | $collecting |")
    end
end

main()
