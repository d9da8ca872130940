// Undefined behaviour of C++ in a kernel: the functions that -fsanitize=undefined calls. They end
// the launch with a message of the emulator's, where libubsan would end the process.
//
// The arguments are what GCC and Clang pass (compiler-rt/lib/ubsan/ubsan_handlers.h describes them).
#include "runtime.h"

namespace {

struct Location {
  const char* file;
  uint32_t line, column;
};
struct Type {
  uint16_t kind, info;  // kind 0: an integer of 2^(info / 2) bits, signed where info is odd
  char name[1];
};
using Value = uintptr_t;  // itself, or where it stands if it is wider

struct OfType { Location location; const Type* type; };
struct Shift { Location location; const Type *left, *right; };
struct Bounds { Location location; const Type *array, *index; };
struct Mismatch { Location location; const Type* type; unsigned char log_alignment, access; };

std::string number(const Type* type, Value value) {
  if (type->kind != 0) return "a value";
  int bits = 1 << (type->info >> 1);
  if (bits > 64) return "a value of 128 bits";
  if (!(type->info & 1)) return std::to_string(bits == 64 ? value : value & ((Value(1) << bits) - 1));
  return std::to_string(int64_t(value) << (64 - bits) >> (64 - bits));
}

[[noreturn]] void overflow(const OfType* data, Value a, const char* op, Value b, void* from) {
  emu::fail_at(number(data->type, a) + op + number(data->type, b) + " does not fit " +
               data->type->name, from);
}

}  // namespace

#define HANDLER(name, ...) \
  extern "C" __attribute__((visibility("default"))) void __ubsan_handle_##name##_abort(__VA_ARGS__)
#define FROM __builtin_return_address(0)

HANDLER(add_overflow, OfType* data, Value a, Value b) { overflow(data, a, " + ", b, FROM); }
HANDLER(sub_overflow, OfType* data, Value a, Value b) { overflow(data, a, " - ", b, FROM); }
HANDLER(mul_overflow, OfType* data, Value a, Value b) { overflow(data, a, " * ", b, FROM); }
HANDLER(divrem_overflow, OfType* data, Value a, Value b) {
  if (number(data->type, b) == "0")
    emu::fail_at(number(data->type, a) + " is divided by zero", FROM);
  overflow(data, a, " / ", b, FROM);
}
HANDLER(negate_overflow, OfType* data, Value a) {
  emu::fail_at("-(" + number(data->type, a) + ") does not fit " + data->type->name, FROM);
}
HANDLER(shift_out_of_bounds, Shift* data, Value a, Value b) {
  emu::fail_at(number(data->left, a) + " of type " + data->left->name + " is shifted by " +
               number(data->right, b), FROM);
}
HANDLER(out_of_bounds, Bounds* data, Value index) {
  emu::fail_at("index " + number(data->index, index) + " is beyond an array of type " +
               data->array->name, FROM);
}
HANDLER(type_mismatch_v1, Mismatch* data, Value address) {
  static const char* const ACCESS[] = {"is read", "is written", "is bound to a reference"};
  const char* access = data->access < 3 ? ACCESS[data->access] : "is used";
  size_t alignment = size_t(1) << data->log_alignment;
  std::string what = std::string("a value of type ") + data->type->name + " " + access;
  if (!address) emu::fail_at(what + " through a null pointer", FROM);
  if (address % alignment)
    emu::fail_at(what + " at an address that is not a multiple of " + std::to_string(alignment), FROM);
  emu::fail_at(what + " where there is too little room for it", FROM);
}
HANDLER(load_invalid_value, OfType* data, Value value) {
  emu::fail_at(number(data->type, value) + " is no value of type " + data->type->name, FROM);
}
HANDLER(pointer_overflow, Location*, Value, Value) {
  emu::fail_at("a pointer is moved beyond the address space, or from null", FROM);
}
HANDLER(vla_bound_not_positive, OfType*, Value) {
  emu::fail_at("an array whose length is not positive", FROM);
}
HANDLER(nonnull_arg, void*) { emu::fail_at("a null pointer where none is allowed", FROM); }
HANDLER(invalid_builtin, void*) { emu::fail_at("a count of leading or trailing zeros of 0", FROM); }
extern "C" __attribute__((visibility("default"))) void __ubsan_handle_builtin_unreachable(void*) {
  emu::fail_at("a place is reached that is declared unreachable", FROM);
}
