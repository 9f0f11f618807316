// What is done to features between convolutions on a CPU, in as few passes over memory as it takes:
// memory is what bounds it.
//
// Features lie with channels last: the channels of a pixel side by side, one stride from pixel to
// pixel and one from image to image, so that a slice of channels is a feature too. Images are
// divided among the threads. Sums are float, or double for features that are.
//
// Compiled and called by cpu.py, which says what the functions compute.

#include <algorithm>
#include <cstdint>
#include <cstring>
#include <type_traits>

#define INLINE __attribute__((always_inline))

namespace {

constexpr int GROUP = 4;  // pixels that share a weight once it is loaded
constexpr int TILE = 64;  // pixels of which one feature stays in the first cache

struct Feature {
  int64_t channels;
  void *data;
  int64_t image, pixel;  // strides
};

struct Term {
  Feature feature;
  const void *weight;  // of each channel; 1 where this is null
  int64_t image;       // stride of the weights
};

struct Terms {
  int64_t count;
  const Term *of;
};

struct Shape {
  int64_t images, pixels, threads;
};

// What a function is called with: one row of 64-bit numbers, read in order. An address of zero stands
// for what there is not.
class Row {
public:
  explicit Row(const int64_t *row) : next_(row) {}
  int64_t number() { return *next_++; }
  template <class A> A *address() { return reinterpret_cast<A *>(number()); }
  Shape shape() { return take<Shape>(); }
  Feature feature() { return take<Feature>(); }
  Terms terms() {
    const int64_t count = number();
    const Term *of = reinterpret_cast<const Term *>(next_);
    next_ += count * (sizeof(Term) / sizeof(int64_t));
    return {count, of};
  }

private:
  template <class Struct> Struct take() {
    const Struct taken = *reinterpret_cast<const Struct *>(next_);
    next_ += sizeof(Struct) / sizeof(int64_t);
    return taken;
  }
  const int64_t *next_;
};

struct bfloat16 {
  uint16_t bits;
};

// Channels that are computed on together: so many, known to the compiler, or what is left of them.
template <int lanes> struct All {
  static constexpr int width = lanes;
  constexpr operator int() const { return lanes; }
};
struct Left {
  static constexpr int width = 8;
  int lanes;
  operator int() const { return lanes; }
};

template <class S, int width> struct Lanes {
  typedef S type __attribute__((vector_size(width * sizeof(S))));
};
template <class S, class N> using Vector = typename Lanes<S, N::width>::type;

template <class To, class From> inline To same_bits(const From &from) {
  static_assert(sizeof(To) == sizeof(From));
  To to;
  memcpy(&to, &from, sizeof to);
  return to;
}

// The numbers from there on; lanes that are not computed on are zero.
template <class A, class V, class N> inline void load(const A *from, V &to, N n) {
  to = V{};
  memcpy(&to, from, n * sizeof(A));
}
template <class V, class N> inline void load(const bfloat16 *from, V &to, N n) {
  Vector<uint16_t, N> halves = {};
  memcpy(&halves, from, n * sizeof(bfloat16));
  to = same_bits<V>(__builtin_convertvector(halves, Vector<uint32_t, N>) << 16);
}

template <class A, class V, class N> inline void store(const V &from, A *to, N n) {
  memcpy(to, &from, n * sizeof(A));
}
// Rounded to the nearest, ties to even; what is not a number stays so.
template <class V, class N> inline void store(const V &from, bfloat16 *to, N n) {
  using Words = Vector<uint32_t, N>;
  const Words words = same_bits<Words>(from);
  const Words rounded = (words + 0x7fff + ((words >> 16) & 1)) >> 16;
  const Words quiet = (words >> 16) | 0x40;
  const auto halves =
      __builtin_convertvector(from == from ? rounded : quiet, Vector<uint16_t, N>);
  memcpy(to, &halves, n * sizeof(bfloat16));
}

// What a few pixels of an image have in a few channels.
template <class V, int size> struct Values {
  V of[size];
};
#define OPERATOR(op)                                                                               \
  template <class V, int size>                                                                     \
  inline Values<V, size> operator op(Values<V, size> x, const Values<V, size> &y) {                \
    for (int i = 0; i < size; ++i) x.of[i] = x.of[i] op y.of[i];                                   \
    return x;                                                                                      \
  }                                                                                                \
  template <class V, int size> inline Values<V, size> operator op(Values<V, size> x, const V &y) { \
    for (int i = 0; i < size; ++i) x.of[i] = x.of[i] op y;                                         \
    return x;                                                                                      \
  }
OPERATOR(+)
OPERATOR(-)
OPERATOR(*)

// Where those values are: every function is said in reads and writes of such groups.
template <class T, class A, int size, class N> struct Group {
  using V = Vector<A, N>;
  using Block = Values<V, size>;
  int64_t image, pixel, c;
  N n;

  T *at(const Feature &feature, int i) const {
    return static_cast<T *>(feature.data) + image * feature.image + (pixel + i) * feature.pixel + c;
  }
  Block read(const Feature &feature) const {
    Block x;
    for (int i = 0; i < size; ++i) load(at(feature, i), x.of[i], n);
    return x;
  }
  void write(const Block &x, const Feature &feature) const {
    for (int i = 0; i < size; ++i) store(x.of[i], at(feature, i), n);
  }
};

// Some channels of some pixels of an image.
template <class T, class A, class N> struct Lane {
  using V = Vector<A, N>;
  int64_t image, begin, end, c;
  N n;

  // One number for each channel.
  V read(const A *of) const {
    V x;
    load(of + c, x, n);
    return x;
  }
  void write(const V &x, A *to) const { store(x, to + c, n); }
  template <class Body> INLINE void for_groups(const Body &body) const {
    int64_t pixel = begin;
    for (; pixel + GROUP <= end; pixel += GROUP) body(Group<T, A, GROUP, N>{image, pixel, c, n});
    for (; pixel < end; ++pixel) body(Group<T, A, 1, N>{image, pixel, c, n});
  }
};

template <class V, int size> inline V total(const Values<V, size> &x) {
  V sum = x.of[0];
  for (int i = 1; i < size; ++i) sum += x.of[i];
  return sum;
}

template <class V, int size, class A> inline Values<V, size> clamped(Values<V, size> x, A ceiling) {
  const V zero = {}, most = zero + ceiling;
  for (V &y : x.of) y = y < zero ? zero : y, y = y > most ? most : y;
  return x;
}

// x where y is not at an end of its activation, else zero.
template <class V, int size, class A>
inline Values<V, size> gated(Values<V, size> x, const Values<V, size> &y, A ceiling) {
  for (int i = 0; i < size; ++i)
    x.of[i] = ((y.of[i] > A(0)) & (y.of[i] < ceiling)) ? x.of[i] : V{};
  return x;
}

template <class T, class A, class Body>
INLINE inline void for_lanes(int64_t image, int64_t begin, int64_t end, int64_t channels,
                             const Body &body) {
  int64_t c = 0;
#ifdef __AVX512F__
  for (; c + 16 <= channels; c += 16) body(Lane<T, A, All<16>>{image, begin, end, c, {}});
#endif
  for (; c + 8 <= channels; c += 8) body(Lane<T, A, All<8>>{image, begin, end, c, {}});
  const Left left{static_cast<int>(channels - c)};
  if (c < channels) body(Lane<T, A, Left>{image, begin, end, c, left});
}

// Calls body(image, begin, end) for the tiles of every image, in order.
template <class Body> void for_tiles(const Shape &shape, Body body) {
#pragma omp parallel for num_threads(shape.threads) schedule(static) firstprivate(body)
  for (int64_t image = 0; image < shape.images; ++image)
    for (int64_t begin = 0; begin < shape.pixels; begin += TILE)
      body(image, begin, std::min<int64_t>(begin + TILE, shape.pixels));
}
template <class T, class A, class Body>
void for_all(const Shape &shape, int64_t channels, Body body) {
  for_tiles(shape, [=](int64_t image, int64_t begin, int64_t end) INLINE {
    for_lanes<T, A>(image, begin, end, channels, body);
  });
}

// Adds what the features have, times their weights.
template <class T, class A, class N, class Group, class Block>
INLINE inline Block with_terms(const Lane<T, A, N> &lane, const Group &group, Block sum,
                               const Terms &terms) {
  for (int64_t j = 0; j < terms.count; ++j) {
    const Term &term = terms.of[j];
    const A *weight = static_cast<const A *>(term.weight) + lane.image * term.image;
    const Block x = group.read(term.feature);
    sum = term.weight ? sum + x * lane.read(weight) : sum + x;
  }
  return sum;
}

template <class T, class A> void weighted_sum(Row row, A ceiling) {
  const Shape shape = row.shape();
  const Feature out = row.feature(), plus = row.feature(), gate = row.feature();
  const A *start = row.address<const A>();
  const Terms terms = row.terms();
  for_all<T, A>(shape, out.channels, [=](auto lane) INLINE {
    typename decltype(lane)::V of_channel = {};
    if (start) of_channel = lane.read(start + lane.image * out.channels);
    lane.for_groups([=](auto group) INLINE {
      auto sum = typename decltype(group)::Block{} + of_channel;
      if (plus.data) sum = sum + group.read(plus);
      sum = with_terms(lane, group, sum, terms);
      if (gate.data) sum = gated(sum, group.read(gate), ceiling);
      group.write(sum, out);
    });
  });
}

template <class T, class A> void channel_dots(Row row, A) {
  const Shape shape = row.shape();
  const Feature gradient = row.feature();
  A *dots = row.address<A>();  // terms x images x channels
  const Terms terms = row.terms();
  const int64_t channels = gradient.channels;
  std::fill_n(dots, terms.count * shape.images * channels, A(0));
  for_all<T, A>(shape, channels, [=](auto lane) INLINE {
    for (int64_t j = 0; j < terms.count; ++j) {
      A *own = dots + (j * shape.images + lane.image) * channels;
      auto sum = lane.read(own);
      lane.for_groups([=, &sum](auto group) INLINE {
        sum += total(group.read(gradient) * group.read(terms.of[j].feature));
      });
      lane.write(sum, own);
    }
  });
}

template <class T, class A> void join(Row row, A ceiling) {
  const Shape shape = row.shape();
  const Feature before = row.feature(), x = row.feature(), also = row.feature();
  A *sums = row.address<A>();  // images x channels
  const Feature r = row.feature();
  const Terms terms = row.terms();
  std::fill_n(sums, shape.images * before.channels, A(0));
  for_tiles(shape, [=](int64_t image, int64_t begin, int64_t end) INLINE {
    for_lanes<T, A>(image, begin, end, before.channels, [=](auto lane) INLINE {
      A *own = sums + image * before.channels;
      auto sum = lane.read(own);
      lane.for_groups([=, &sum](auto group) INLINE {
        const auto y = clamped(group.read(before), ceiling);
        group.write(y, x);
        if (also.data) group.write(y, also);
        sum += total(y);
      });
      lane.write(sum, own);
    });
    for_lanes<T, A>(image, begin, end, r.channels, [=](auto lane) INLINE {
      lane.for_groups([=](auto group) INLINE {
        group.write(with_terms(lane, group, typename decltype(group)::Block{}, terms), r);
      });
    });
  });
}

// Two sums over the pixels of each image: of x less origin, and of its square.
template <class T, class A> void moments(Row row, A) {
  const Shape shape = row.shape();
  const Feature x = row.feature();
  const A *origin = row.address<const A>();
  A *sums = row.address<A>();  // images x 2 x channels
  std::fill_n(sums, 2 * shape.images * x.channels, A(0));
  for_all<T, A>(shape, x.channels, [=](auto lane) INLINE {
    A *first = sums + 2 * lane.image * x.channels, *second = first + x.channels;
    const auto from = lane.read(origin);
    auto sum = lane.read(first), squares = lane.read(second);
    lane.for_groups([=, &sum, &squares](auto group) INLINE {
      const auto d = group.read(x) - from;
      sum += total(d);
      squares += total(d * d);
    });
    lane.write(sum, first);
    lane.write(squares, second);
  });
}

// (x - mean) * scale + bias + skip, activated where there is a ceiling above zero.
template <class T, class A> void normalise(Row row, A ceiling) {
  const Shape shape = row.shape();
  const Feature x = row.feature(), skip = row.feature(), out = row.feature();
  const A *mean = row.address<const A>(), *scale = row.address<const A>();
  const A *bias = row.address<const A>();
  for_all<T, A>(shape, x.channels, [=](auto lane) INLINE {
    const auto centre = lane.read(mean), factor = lane.read(scale), plus = lane.read(bias);
    lane.for_groups([=](auto group) INLINE {
      auto y = (group.read(x) - centre) * factor + plus;
      if (skip.data) y = y + group.read(skip);
      if (ceiling > 0) y = clamped(y, ceiling);
      group.write(y, out);
    });
  });
}

// Two sums over the pixels of each image: of the gradient g of what was activated, and of
// g * (x - mean). Where the activation ends is seen from its output, or, if nothing was added
// before it, from x.
template <class T, class A> void normalise_sums(Row row, A ceiling) {
  const Shape shape = row.shape();
  const Feature d_out = row.feature(), x = row.feature(), out = row.feature();
  const Feature d_skip = row.feature();
  const A *mean = row.address<const A>(), *scale = row.address<const A>();
  const A *bias = row.address<const A>();
  A *sums = row.address<A>();  // images x 2 x channels
  std::fill_n(sums, 2 * shape.images * x.channels, A(0));
  for_all<T, A>(shape, x.channels, [=](auto lane) INLINE {
    A *first = sums + 2 * lane.image * x.channels, *second = first + x.channels;
    const auto centre = lane.read(mean), factor = lane.read(scale), plus = lane.read(bias);
    auto sum = lane.read(first), products = lane.read(second);
    lane.for_groups([=, &sum, &products](auto group) INLINE {
      auto g = group.read(d_out);
      const auto d = group.read(x) - centre;
      if (ceiling > 0 && out.data) g = gated(g, group.read(out), ceiling);
      if (ceiling > 0 && !out.data) g = gated(g, d * factor + plus, ceiling);
      if (d_skip.data) group.write(g, d_skip);
      sum += total(g);
      products += total(g * d);
    });
    lane.write(sum, first);
    lane.write(products, second);
  });
}

// scale * (g - constant - (x - mean) * slope), g gated by x where there is a ceiling above zero.
template <class T, class A> void normalise_gradient(Row row, A ceiling) {
  const Shape shape = row.shape();
  const Feature d_out = row.feature(), x = row.feature(), d_x = row.feature();
  const A *mean = row.address<const A>(), *scale = row.address<const A>();
  const A *bias = row.address<const A>(), *constant = row.address<const A>();
  const A *slope = row.address<const A>();
  for_all<T, A>(shape, x.channels, [=](auto lane) INLINE {
    const auto centre = lane.read(mean), factor = lane.read(scale), plus = lane.read(bias);
    const auto less = lane.read(constant), slant = lane.read(slope);
    lane.for_groups([=](auto group) INLINE {
      auto g = group.read(d_out);
      const auto d = group.read(x) - centre;
      if (ceiling > 0) g = gated(g, d * factor + plus, ceiling);
      group.write((g - less - d * slant) * factor, d_x);
    });
  });
}

}  // namespace

#define EXPORT(function)                                                                           \
  extern "C" void function##_float32(const int64_t *row, double ceiling) {                         \
    function<float, float>(Row(row), ceiling);                                                     \
  }                                                                                                \
  extern "C" void function##_float64(const int64_t *row, double ceiling) {                         \
    function<double, double>(Row(row), ceiling);                                                   \
  }                                                                                                \
  extern "C" void function##_bfloat16(const int64_t *row, double ceiling) {                        \
    function<bfloat16, float>(Row(row), ceiling);                                                  \
  }

EXPORT(weighted_sum)
EXPORT(channel_dots)
EXPORT(join)
EXPORT(moments)
EXPORT(normalise)
EXPORT(normalise_sums)
EXPORT(normalise_gradient)
