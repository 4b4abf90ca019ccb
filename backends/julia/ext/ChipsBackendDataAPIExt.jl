"Where DataAPI.jl is loaded, as it is with CategoricalArrays: a value that wraps another, such as a category, is that other one."
module ChipsBackendDataAPIExt

import DataAPI
using ChipsBackend: Backend

function __init__()
    Backend.UNWRAP[] = DataAPI.unwrap
    Backend.LEVELS[] = DataAPI.levels
end

end
