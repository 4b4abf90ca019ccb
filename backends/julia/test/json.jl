using .Backend.StrictJSON

read_back(text) = parse_json(text)
failure(text) =
    try
        parse_json(text)
        nothing
    catch error
        error isa JSONError || rethrow()
        error
    end

@testset "what is JSON is read" begin
    @test parse_json(" [1, -2.5e3, \"a\\u00e9\\ud83d\\ude00\\n\\/\", true, false, null, {}] ") ==
          [1, -2500.0, "aé😀\n/", true, false, nothing, Dict()]
    @test parse_json("{\"a\":{\"b\":[{}]},\"c\":\"\"}") == Dict("a" => Dict("b" => [Dict()]), "c" => "")
    @test_throws JSONError parse_json("{\"a\":1,\"b\":{},\"a\":2}")
    @test parse_json("[" ^ 900 * "]" ^ 900) isa Vector
end

@testset "numbers keep their kind" begin
    @test parse_json("1") === Int64(1)
    @test parse_json("-0") === Int64(0)
    @test parse_json("1.0") === 1.0
    @test parse_json("-0.0") === -0.0
    @test parse_json("1e2") === 100.0
    @test parse_json("1e-400") === 0.0
    @test parse_json(string(typemax(Int64))) === typemax(Int64)
    @test parse_json("18446744073709551616") == big(2)^64
    @test parse_json("1.7976931348623157e308") === floatmax(Float64)
end

@testset "what is not JSON is refused, with its place" begin
    for text in (
        "",
        " ",
        "{",
        "[1,]",
        "{\"a\":1,}",
        "{} x",
        "[1 2]",
        "nul",
        "truex",
        "{1:2}",
        "{\"a\" 1}",
        "\"abc",
        "01",
        "-01",
        "1.",
        ".5",
        "-",
        "+1",
        "1e",
        "1e+",
        "NaN",
        "Infinity",
        "-Infinity",
        "1e400",
        "-1e400",
        "1" ^ 5000,
        "'a'",
        "/**/1",
        "\"\t\"",
        "\"\\x\"",
        "\"\\u12g4\"",
        "\"\\ud800\"",
        "\"\\ud800\\n\"",
        "\"\\udc00\"",
        "\"\\ud800\\ud800\"",
        "[" ^ 901 * "]" ^ 901,
        "\ufeff{}",
        "[1]\0",
        "\0",
    )
        @test failure(text) isa JSONError
    end
    for bytes in (UInt8[0x22, 0xff, 0x22], b"\"\xc0\x80\"", b"\"\xed\xa0\x80\"", b"{\"a\":\"\xe2\x82", b"\xff\xfe{\0")
        @test failure(Vector{UInt8}(bytes)) isa JSONError
    end
    @test failure("[1,\n  x]").offset == 6
    @test failure(Vector{UInt8}(b"\"ab\xff\"")).offset == 3
    @test failure("{\"a\": t}").offset == 7
end

@testset "what is written is read back the same" begin
    text = "\"\\\n\t\u2028é😀\x01"
    for value in (1, -1.5, 1e300, 5e-324, text, [1, "a", [nothing]], Dict("a" => Dict("b" => [])), true, nothing)
        @test parse_json(encode(value)) == value
        @test parse_json(encode(value, indent = 2)) == value
    end
end

@testset "what JSON cannot say is null, or what comes nearest" begin
    @test String(encode([NaN, Inf, -Inf, missing, nothing])) == "[null,null,null,null,null]"
    @test String(encode([1.0f-5, Float16(1.5), 1.0f20])) == "[1.0e-5,1.5,1.0e20]"
    @test String(encode((a = 1, b = :c, d = 'e'))) == "{\"a\":1,\"b\":\"c\",\"d\":\"e\"}"
    @test String(encode([1 2; 3 4])) == "[[1,2],[3,4]]"
    @test String(encode(["b" => 1, "a" => (2, 3)])) == "{\"b\":1,\"a\":[2,3]}"
    @test String(encode(Pair{String,Any}[])) == "{}"
    @test String(encode("a\xffb")) == "\"a\ufffdb\""
    @test String(encode([1, 2, 3][1:2])) == "[1,2]"
end
