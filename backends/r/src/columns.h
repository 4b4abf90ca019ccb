// The columns of a data frame, filled cell by cell as the signature says.
#pragma once

#include "json.h"

namespace chips {

// As R/compiled.R numbers them.
enum class Kind { real = 1, integer, whole_real, logical, text, category };

struct Input {
  SEXP name;  // a CHARSXP in UTF-8
  const char *bytes;
  size_t size;
  Kind kind;
  double low, high;  // of a number
  SEXP categories;   // texts or numbers; R_NilValue for none
};

// Numbers of one datatype: all of them, or the integers, between two limits.
struct Range {
  double low, high;
  bool whole;
  bool holds(double value) const { return value >= low && value <= high && (!whole || value == static_cast<int64_t>(value)); }
};

class Columns {
 public:
  // `plan` is what R/compiled.R calls a reading plan. `list` is a protected list for the columns.
  Columns(SEXP plan, SEXP list);
  int width() const { return width_; }
  const Input &input(int column) const { return inputs_[column]; }
  // Room for this many rows in each column; what is there is kept.
  void reserve(R_xlen_t rows);
  R_xlen_t capacity() const { return capacity_; }
  // Read the next value into a cell; `range` narrows the numbers further.
  bool read(Cursor *cursor, int column, R_xlen_t row, const Range *range = nullptr);
  // The column of this name, or -1. `likely` is tried first.
  int find(const Text &name, int likely);
  // The columns, cut to so many rows, as a data frame.
  SEXP frame(R_xlen_t rows, SEXP names);

 private:
  bool read_number(Cursor *cursor, int column, R_xlen_t row, const Range *range);
  bool read_text(Cursor *cursor, int column, R_xlen_t row);
  void set_missing(int column, R_xlen_t row);
  void make_index();

  int width_;
  Input *inputs_;
  SEXP list_;
  void **data_;  // of each column that has no texts
  R_xlen_t capacity_;
  int *index_;  // by the hash of a name; made when a request has another order than the signature
  size_t index_size_;
};

// A list's element by its name.
SEXP element(SEXP list, const char *name);

}  // namespace chips
