// From the bytes of a request to the columns that predict_rows() takes, in one pass.
#include "columns.h"

#include <cstring>

#include "entries.h"

namespace chips {

static bool same(const Text &text, const char *name) {
  return text.size == std::strlen(name) && std::memcmp(text.bytes, name, text.size) == 0;
}

struct Slice {
  const char *from = nullptr;
  const char *to = nullptr;
};

// A value that R code reads by itself: parameters, outputs.
static bool keep(Cursor *cursor, Slice *slice) {
  if (slice->from != nullptr) return false;  // a second one of the name
  cursor->skip_space();
  slice->from = cursor->at;
  if (!cursor->skip()) return false;
  slice->to = cursor->at;
  return true;
}

static SEXP raw_of(const Slice &slice) {
  if (slice.from == nullptr) return R_NilValue;
  const auto size = slice.to - slice.from;
  SEXP raw = Rf_allocVector(RAWSXP, size);
  if (size > 0) std::memcpy(RAW(raw), slice.from, static_cast<size_t>(size));
  return raw;
}

static Cursor cursor_of(SEXP body) {
  const auto *bytes = reinterpret_cast<const char *>(RAW(body));
  const auto size = static_cast<size_t>(Rf_xlength(body));
  return {bytes, bytes + size, nullptr, size};
}

// -- {"instances": [...]}

class Rows {
 public:
  Rows(Cursor *cursor, Columns *columns) : cursor_(cursor), columns_(columns), count_(0) {
    const auto width = static_cast<size_t>(columns->width());
    order_ = reinterpret_cast<int *>(R_alloc(width, sizeof(int)));
    filled_ = reinterpret_cast<R_xlen_t *>(R_alloc(width, sizeof(R_xlen_t)));
    for (size_t at = 0; at < width; ++at) {
      order_[at] = static_cast<int>(at);
      filled_[at] = 0;
    }
  }

  R_xlen_t count() const { return count_; }

  bool read() {
    if (!cursor_->take('[')) return false;
    if (cursor_->take(']')) return true;
    do {
      make_room();
      const char first = cursor_->next();
      if (first == '{' ? !object() : first != '[' || !array()) return false;
      if (++count_ == INT32_MAX) return false;
    } while (cursor_->take(','));
    return cursor_->take(']');
  }

 private:
  // The first row says how long the others may be.
  void make_room() {
    if (count_ == 0) {
      begin_ = cursor_->at;
      columns_->reserve(1);
    } else if (count_ == columns_->capacity()) {
      const auto each = (cursor_->at - begin_) / count_ + 1;
      columns_->reserve(count_ + (cursor_->end - cursor_->at) / each + count_ / 8 + 1);
    }
  }

  bool array() {
    ++cursor_->at;
    for (int at = 0; at < columns_->width(); ++at) {
      if ((at > 0 && !cursor_->take(',')) || !columns_->read(cursor_, at, count_)) return false;
    }
    return cursor_->take(']');
  }

  // Rows mostly have their fields in one order, so the last row's is tried first. A name must not stand twice.
  bool object() {
    ++cursor_->at;
    int known = 0, place = 0;
    const int width = columns_->width();
    do {
      Text name;
      if (!cursor_->string(&name)) return false;
      const int column = columns_->find(name, place < width ? order_[place] : 0);
      if (column < 0 || filled_[column] > count_) return false;
      if (!cursor_->take(':') || !columns_->read(cursor_, column, count_)) return false;
      order_[place++] = column;
      filled_[column] = count_ + 1;
      ++known;
    } while (cursor_->take(','));
    return known == width && cursor_->take('}');
  }

  Cursor *cursor_;
  Columns *columns_;
  R_xlen_t count_;
  const char *begin_ = nullptr;
  int *order_;         // the column of each field of the row before
  R_xlen_t *filled_;   // the row that last gave each column a value, counted from 1
};

// A list of rows and count, and of what more there is as raw bytes; NULL where the R code is to read it.
static SEXP read_instances(SEXP body, SEXP plan) {
  Cursor cursor = cursor_of(body);
  if (!is_utf8(cursor.at, cursor.room)) return R_NilValue;
  SEXP names = element(plan, "names");
  SEXP list = PROTECT(Rf_allocVector(VECSXP, Rf_xlength(names)));
  Columns columns(plan, list);
  Rows rows(&cursor, &columns);
  Slice parameters;
  bool found = false, right = cursor.take('{');
  if (right) do {
    Text name;
    right = cursor.string(&name);
    const bool instances = right && !found && same(name, "instances"), more = right && same(name, "parameters");
    right = (instances || more) && cursor.take(':') && (instances ? rows.read() : keep(&cursor, &parameters));
    found = found || instances;
  } while (right && cursor.take(','));
  right = right && found && cursor.take('}') && cursor.next() == 0 && cursor.at == cursor.end;
  if (!right) {
    UNPROTECT(1);
    return R_NilValue;
  }
  columns.frame(rows.count(), names);
  const char *parts[] = {"rows", "count", "parameters", ""};
  SEXP answer = PROTECT(Rf_mkNamed(VECSXP, parts));
  SET_VECTOR_ELT(answer, 0, list);
  SET_VECTOR_ELT(answer, 1, Rf_ScalarInteger(static_cast<int>(rows.count())));
  SET_VECTOR_ELT(answer, 2, raw_of(parameters));
  UNPROTECT(2);
  return answer;
}

// -- {"inputs": [{"name": ..., "shape": ..., "datatype": ..., "data": [...]}]}

struct Tensor {
  Slice name, datatype, data, parameters;  // as they stand in the body
  int64_t shape[2];
  int dimensions;
};

static bool read_shape(Cursor *cursor, Tensor *tensor) {
  if (tensor->dimensions != 0 || !cursor->take('[')) return false;
  do {
    double size;
    bool integer;
    if (tensor->dimensions == 2 || !cursor->number(&size, &integer) || !integer || size < 0 || size > INT32_MAX - 1) {
      return false;
    }
    tensor->shape[tensor->dimensions++] = static_cast<int64_t>(size);
  } while (cursor->take(','));
  return cursor->take(']');
}

// To the end of an array, whatever is in it; it is read once its shape and datatype are known.
static bool find_end(Cursor *cursor, Slice *data) {
  if (data->from != nullptr || cursor->next() != '[') return false;
  data->from = cursor->at;
  int depth = 0;
  for (; cursor->at < cursor->end; ++cursor->at) {
    const char byte = *cursor->at;
    if (byte == '[') ++depth;
    if (byte == ']' && --depth == 0) {
      data->to = ++cursor->at;
      return true;
    }
    if (byte == '{') return false;
    if (byte == '"') {
      Text text;
      if (!cursor->string(&text)) return false;
      --cursor->at;
    }
  }
  return false;
}

// Whether a tensor's parameters leave it as it is: they may say that its data are binary.
static bool says_nothing(const Slice &slice) {
  static const char binary[] = "binary_data_size";
  const auto size = static_cast<size_t>(slice.to - slice.from);
  return memmem(slice.from, size, binary, sizeof binary - 1) == nullptr && std::memchr(slice.from, '\\', size) == nullptr;
}

static bool read_head(Cursor *cursor, Tensor *tensor) {
  *tensor = {};
  if (!cursor->take('{')) return false;
  do {
    Text name;
    if (!cursor->string(&name)) return false;
    const bool is_name = same(name, "name"), is_type = same(name, "datatype"), is_shape = same(name, "shape"),
               is_data = same(name, "data"), is_more = same(name, "parameters");
    if (!cursor->take(':')) return false;
    const bool right = is_name    ? keep(cursor, &tensor->name)
                       : is_type  ? keep(cursor, &tensor->datatype)
                       : is_shape ? read_shape(cursor, tensor)
                       : is_data  ? find_end(cursor, &tensor->data)
                       : is_more  ? keep(cursor, &tensor->parameters) && says_nothing(tensor->parameters)
                                  : false;
    if (!right) return false;
  } while (cursor->take(','));
  return cursor->take('}') && tensor->name.from != nullptr && tensor->datatype.from != nullptr &&
         tensor->data.from != nullptr && tensor->dimensions > 0;
}

static bool text_of(const Slice &slice, Cursor *scratch, Text *text) {
  Cursor cursor = {slice.from, slice.to, scratch->scratch, scratch->room};
  const bool right = cursor.string(text) && cursor.at == cursor.end;
  scratch->scratch = cursor.scratch;
  return right;
}

// The numbers that a tensor's own datatype has; `kind` is that of the values, as an input's is.
struct Datatype {
  Kind kind;
  Range range;
};

static const Datatype *datatype_of(const Slice &slice, SEXP types, Cursor *scratch, Datatype *found) {
  Text text;
  if (!text_of(slice, scratch, &text)) return nullptr;
  SEXP names = element(types, "names");
  for (R_xlen_t at = 0; at < Rf_xlength(names); ++at) {
    if (!same(text, CHAR(STRING_ELT(names, at)))) continue;
    const auto kind = static_cast<Kind>(INTEGER(element(types, "kinds"))[at]);
    *found = {kind,
              {REAL(element(types, "low"))[at], REAL(element(types, "high"))[at],
               kind == Kind::integer || kind == Kind::whole_real}};
    return found;
  }
  return nullptr;
}

static bool is_number(Kind kind) { return kind == Kind::real || kind == Kind::integer || kind == Kind::whole_real; }
static bool is_text(Kind kind) { return kind == Kind::text || kind == Kind::category; }

static bool fits(Kind tensor, Kind input) {
  return (is_number(tensor) && is_number(input)) || (is_text(tensor) && is_text(input)) ||
         (tensor == Kind::logical && input == Kind::logical);
}

// Row-major values, flat or nested, into the columns from `first` on, `width` of them.
static bool read_data(const Tensor &tensor, const Datatype &type, Cursor *scratch, Columns *columns, int first, int width) {
  Cursor cursor = {tensor.data.from, tensor.data.to, scratch->scratch, scratch->room};
  const int64_t rows = tensor.shape[0];
  int64_t row = 0;
  int column = 0, depth = 0;
  bool comma = false;  // whether a value may follow only after one
  while (cursor.next() != 0) {
    const char byte = *cursor.at;
    if (byte == ']') {
      if (!comma) return false;  // an empty array, or a comma before its end
      ++cursor.at;
      if (--depth == 0) break;
      continue;
    }
    if (comma && !cursor.take(',')) return false;
    comma = false;
    if (cursor.next() == '[') {
      if (++depth > 8) return false;
      ++cursor.at;
      continue;
    }
    if (depth == 0 || row == rows || !columns->read(&cursor, first + column, row, &type.range)) return false;
    comma = true;
    if (++column == width) {
      column = 0;
      ++row;
    }
  }
  scratch->scratch = cursor.scratch;
  return depth == 0 && row == rows && column == 0 && cursor.at == tensor.data.to;
}

struct Request {
  Slice id, parameters, outputs, ignored[2];
  Tensor *tensors = nullptr;
  int count = 0;
};

// Which column a tensor is for: -1 for none.
static int column_of(const Tensor &tensor, int likely, Cursor *cursor, Columns *columns) {
  Text name;
  return text_of(tensor.name, cursor, &name) ? columns->find(name, likely) : -1;
}

// A value takes a byte, and one more before the next.
static bool can_hold(const Slice &data, int64_t values) { return values <= (data.to - data.from) / 2; }

static bool read_tensor(const Tensor &tensor, SEXP types, Cursor *cursor, Columns *columns, int first, int width) {
  Datatype type;
  if (datatype_of(tensor.datatype, types, cursor, &type) == nullptr) return false;
  for (int column = first; column < first + width; ++column) {
    if (!fits(type.kind, columns->input(column).kind)) return false;
  }
  return read_data(tensor, type, cursor, columns, first, width);
}

// A tensor for each input, or one [rows, inputs] for all.
static bool read_tensors(const Request &request, SEXP types, Cursor *cursor, Columns *columns) {
  const Tensor *tensors = request.tensors;
  const int64_t rows = tensors[0].shape[0];
  const int width = columns->width();
  if (rows == 0) return false;
  if (request.count == 1 && width > 1) {
    const bool matrix = tensors[0].dimensions == 2 && tensors[0].shape[1] == width;
    if (!matrix || !can_hold(tensors[0].data, rows * width) || column_of(tensors[0], 0, cursor, columns) >= 0) return false;
    columns->reserve(rows);
    return read_tensor(tensors[0], types, cursor, columns, 0, width);
  }
  if (request.count != width) return false;
  for (int at = 0; at < width; ++at) {
    const Tensor &tensor = tensors[at];
    if (tensor.shape[0] != rows || (tensor.dimensions == 2 && tensor.shape[1] != 1)) return false;
    if (!can_hold(tensor.data, rows)) return false;
  }
  columns->reserve(rows);
  auto *seen = reinterpret_cast<bool *>(R_alloc(static_cast<size_t>(width), sizeof(bool)));
  for (int at = 0; at < width; ++at) seen[at] = false;
  for (int at = 0; at < width; ++at) {
    const int column = column_of(tensors[at], at, cursor, columns);
    if (column < 0 || seen[column] || !read_tensor(tensors[at], types, cursor, columns, column, 1)) return false;
    seen[column] = true;
  }
  return true;
}

static bool read_inputs(Cursor *cursor, Request *request, int most) {
  if (request->tensors != nullptr || !cursor->take('[')) return false;
  request->tensors = reinterpret_cast<Tensor *>(R_alloc(static_cast<size_t>(most), sizeof(Tensor)));
  do {
    if (request->count == most || !read_head(cursor, &request->tensors[request->count++])) return false;
  } while (cursor->take(','));
  return cursor->take(']');
}

static bool read_request(Cursor *cursor, Request *request, int most) {
  if (!cursor->take('{')) return false;
  do {
    Text name;
    if (!cursor->string(&name)) return false;
    Slice *slice = same(name, "id")              ? &request->id
                   : same(name, "parameters")    ? &request->parameters
                   : same(name, "outputs")       ? &request->outputs
                   : same(name, "model_name")    ? &request->ignored[0]
                   : same(name, "model_version") ? &request->ignored[1]
                                                 : nullptr;
    if (slice == nullptr && !same(name, "inputs")) return false;
    if (!cursor->take(':')) return false;
    if (!(slice == nullptr ? read_inputs(cursor, request, most) : keep(cursor, slice))) return false;
  } while (cursor->take(','));
  return cursor->take('}') && cursor->next() == 0 && cursor->at == cursor->end && request->tensors != nullptr;
}

static SEXP read_infer(SEXP body, SEXP plan, SEXP types) {
  Cursor cursor = cursor_of(body);
  if (!is_utf8(cursor.at, cursor.room)) return R_NilValue;
  SEXP names = element(plan, "names");
  SEXP list = PROTECT(Rf_allocVector(VECSXP, Rf_xlength(names)));
  Columns columns(plan, list);
  Request request;
  if (!read_request(&cursor, &request, columns.width() + 1) ||
      !read_tensors(request, types, &cursor, &columns)) {
    UNPROTECT(1);
    return R_NilValue;
  }
  const auto rows = static_cast<R_xlen_t>(request.tensors[0].shape[0]);
  columns.frame(rows, names);
  const char *parts[] = {"rows", "count", "parameters", "id", "outputs", ""};
  SEXP answer = PROTECT(Rf_mkNamed(VECSXP, parts));
  SET_VECTOR_ELT(answer, 0, list);
  SET_VECTOR_ELT(answer, 1, Rf_ScalarInteger(static_cast<int>(rows)));
  SET_VECTOR_ELT(answer, 2, raw_of(request.parameters));
  SET_VECTOR_ELT(answer, 3, raw_of(request.id));
  SET_VECTOR_ELT(answer, 4, raw_of(request.outputs));
  UNPROTECT(2);
  return answer;
}

}  // namespace chips

extern "C" SEXP chips_read_instances(SEXP body, SEXP plan) { return chips::read_instances(body, plan); }
extern "C" SEXP chips_read_infer(SEXP body, SEXP plan, SEXP types) { return chips::read_infer(body, plan, types); }
