// What R calls, by .Call.
#pragma once

#define R_NO_REMAP
#include <R.h>
#include <Rinternals.h>

extern "C" {
SEXP chips_read_instances(SEXP body, SEXP plan);
SEXP chips_read_infer(SEXP body, SEXP plan, SEXP types);
SEXP chips_write_array(SEXP values, SEXP whole);
SEXP chips_quote(SEXP texts, SEXP ascii);
SEXP chips_send(SEXP fd, SEXP kind, SEXP body);
SEXP chips_receive(SEXP fd);
SEXP chips_nodelay(SEXP port);
}
