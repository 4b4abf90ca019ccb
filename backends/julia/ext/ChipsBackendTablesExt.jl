"Where Tables.jl is loaded, as it is wherever there are data frames: `predict` may return any of its tables."
module ChipsBackendTablesExt

import Tables
using ChipsBackend: Backend

columns_of(table) = Tables.istable(table) ? Tables.columntable(table) : nothing

__init__() = Backend.COLUMNS_OF_TABLE[] = columns_of

end
