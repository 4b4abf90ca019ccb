#include "columns.h"

#include <cstring>

namespace chips {

SEXP element(SEXP list, const char *name) {
  SEXP names = Rf_getAttrib(list, R_NamesSymbol);
  for (R_xlen_t at = 0; at < Rf_xlength(names); ++at) {
    if (std::strcmp(CHAR(STRING_ELT(names, at)), name) == 0) return VECTOR_ELT(list, at);
  }
  return R_NilValue;
}

static SEXPTYPE type_of(Kind kind) {
  switch (kind) {
    case Kind::real:
    case Kind::whole_real: return REALSXP;
    case Kind::logical: return LGLSXP;
    case Kind::text: return STRSXP;
    default: return INTSXP;
  }
}

Columns::Columns(SEXP plan, SEXP list) : list_(list), capacity_(0), index_(nullptr), index_size_(0) {
  SEXP names = element(plan, "names"), kinds = element(plan, "kinds"), categories = element(plan, "categories");
  const double *low = REAL(element(plan, "low")), *high = REAL(element(plan, "high"));
  width_ = static_cast<int>(Rf_xlength(names));
  inputs_ = reinterpret_cast<Input *>(R_alloc(static_cast<size_t>(width_), sizeof(Input)));
  data_ = reinterpret_cast<void **>(R_alloc(static_cast<size_t>(width_), sizeof(void *)));
  for (int at = 0; at < width_; ++at) {
    SEXP name = STRING_ELT(names, at);
    inputs_[at] = {name, CHAR(name), static_cast<size_t>(LENGTH(name)), static_cast<Kind>(INTEGER(kinds)[at]),
                   low[at], high[at], VECTOR_ELT(categories, at)};
  }
}

void Columns::reserve(R_xlen_t rows) {
  for (int at = 0; at < width_; ++at) {
    const SEXPTYPE type = type_of(inputs_[at].kind);
    SEXP column = capacity_ == 0 ? Rf_allocVector(type, rows) : Rf_xlengthgets(VECTOR_ELT(list_, at), rows);
    SET_VECTOR_ELT(list_, at, column);
    data_[at] = type == REALSXP ? static_cast<void *>(REAL(column))
                : type == STRSXP ? nullptr
                : type == LGLSXP ? static_cast<void *>(LOGICAL(column)) : static_cast<void *>(INTEGER(column));
  }
  capacity_ = rows;
}

void Columns::set_missing(int column, R_xlen_t row) {
  switch (inputs_[column].kind) {
    case Kind::real:
    case Kind::whole_real: static_cast<double *>(data_[column])[row] = NA_REAL; break;
    case Kind::text: SET_STRING_ELT(VECTOR_ELT(list_, column), row, NA_STRING); break;
    default: static_cast<int *>(data_[column])[row] = NA_INTEGER;
  }
}

bool Columns::read(Cursor *cursor, int column, R_xlen_t row, const Range *range) {
  const char first = cursor->next();
  if (first == 'n') {
    set_missing(column, row);
    return cursor->null();
  }
  switch (inputs_[column].kind) {
    case Kind::logical:
      static_cast<int *>(data_[column])[row] = first == 't';
      return first == 't' ? cursor->word("true", 4) : cursor->word("false", 5);
    case Kind::text:
    case Kind::category: return read_text(cursor, column, row);
    default: return read_number(cursor, column, row, range);
  }
}

static bool is_among(double value, SEXP categories) {
  if (categories == R_NilValue) return true;
  const double *known = REAL(categories);
  for (R_xlen_t at = 0; at < Rf_xlength(categories); ++at) {
    if (known[at] == value) return true;
  }
  return false;
}

bool Columns::read_number(Cursor *cursor, int column, R_xlen_t row, const Range *range) {
  const Input &input = inputs_[column];
  double value;
  bool integer;
  if (!cursor->number(&value, &integer)) return false;
  const Range own = {input.low, input.high, input.kind != Kind::real};
  if (!own.holds(value) || (range != nullptr && !range->holds(value)) || !is_among(value, input.categories)) return false;
  if (input.kind == Kind::integer) {
    static_cast<int *>(data_[column])[row] = static_cast<int>(value);
  } else {
    static_cast<double *>(data_[column])[row] = own.whole && value == 0 ? 0 : value;
  }
  return true;
}

// R keeps each text once, so two of them are the same where their addresses are.
bool Columns::read_text(Cursor *cursor, int column, R_xlen_t row) {
  Text text;
  if (!cursor->string(&text) || text.size > INT32_MAX) return false;
  SEXP made = Rf_mkCharLenCE(text.bytes, static_cast<int>(text.size), CE_UTF8);
  if (inputs_[column].kind == Kind::text) {
    SET_STRING_ELT(VECTOR_ELT(list_, column), row, made);
    return true;
  }
  SEXP categories = inputs_[column].categories;
  for (R_xlen_t at = 0; at < Rf_xlength(categories); ++at) {
    if (STRING_ELT(categories, at) == made) {
      static_cast<int *>(data_[column])[row] = static_cast<int>(at + 1);
      return true;
    }
  }
  return false;
}

static size_t hash(const char *bytes, size_t size) {
  uint64_t value = 1469598103934665603u;  // FNV-1a
  for (size_t at = 0; at < size; ++at) value = (value ^ static_cast<unsigned char>(bytes[at])) * 1099511628211u;
  return static_cast<size_t>(value ^ value >> 32);
}

void Columns::make_index() {
  index_size_ = 4;
  while (index_size_ < 2 * static_cast<size_t>(width_)) index_size_ *= 2;
  index_ = reinterpret_cast<int *>(R_alloc(index_size_, sizeof(int)));
  for (size_t at = 0; at < index_size_; ++at) index_[at] = -1;
  for (int column = 0; column < width_; ++column) {
    size_t at = hash(inputs_[column].bytes, inputs_[column].size) & (index_size_ - 1);
    while (index_[at] >= 0) at = (at + 1) & (index_size_ - 1);
    index_[at] = column;
  }
}

int Columns::find(const Text &name, int likely) {
  auto is = [&](int column) {
    return inputs_[column].size == name.size && std::memcmp(inputs_[column].bytes, name.bytes, name.size) == 0;
  };
  if (likely < width_ && is(likely)) return likely;
  if (index_ == nullptr) make_index();
  for (size_t at = hash(name.bytes, name.size) & (index_size_ - 1); index_[at] >= 0; at = (at + 1) & (index_size_ - 1)) {
    if (is(index_[at])) return index_[at];
  }
  return -1;
}

static void make_factor(SEXP column, SEXP categories) {
  Rf_setAttrib(column, R_LevelsSymbol, categories);
  SEXP name = PROTECT(Rf_mkString("factor"));
  Rf_setAttrib(column, R_ClassSymbol, name);
  UNPROTECT(1);
}

SEXP Columns::frame(R_xlen_t rows, SEXP names) {
  if (capacity_ != rows || capacity_ == 0) reserve(rows);
  for (int at = 0; at < width_; ++at) {
    if (inputs_[at].kind == Kind::category) make_factor(VECTOR_ELT(list_, at), inputs_[at].categories);
  }
  Rf_setAttrib(list_, R_NamesSymbol, names);
  SEXP row_names = PROTECT(Rf_allocVector(INTSXP, 2));
  INTEGER(row_names)[0] = NA_INTEGER;
  INTEGER(row_names)[1] = -static_cast<int>(rows);
  Rf_setAttrib(list_, R_RowNamesSymbol, row_names);
  SEXP kind = PROTECT(Rf_mkString("data.frame"));
  Rf_setAttrib(list_, R_ClassSymbol, kind);
  UNPROTECT(2);
  return list_;
}

}  // namespace chips
