#include <R_ext/Rdynload.h>
#include <R_ext/Visibility.h>

#include "entries.h"

static const R_CallMethodDef entries[] = {
    {"chips_read_instances", reinterpret_cast<DL_FUNC>(chips_read_instances), 2},
    {"chips_read_infer", reinterpret_cast<DL_FUNC>(chips_read_infer), 3},
    {"chips_write_array", reinterpret_cast<DL_FUNC>(chips_write_array), 2},
    {"chips_quote", reinterpret_cast<DL_FUNC>(chips_quote), 2},
    {"chips_send", reinterpret_cast<DL_FUNC>(chips_send), 3},
    {"chips_receive", reinterpret_cast<DL_FUNC>(chips_receive), 1},
    {"chips_nodelay", reinterpret_cast<DL_FUNC>(chips_nodelay), 1},
    {nullptr, nullptr, 0},
};

extern "C" attribute_visible void R_init_chips(DllInfo *library) {
  R_registerRoutines(library, nullptr, entries, nullptr, nullptr);
  R_useDynamicSymbols(library, FALSE);
}
