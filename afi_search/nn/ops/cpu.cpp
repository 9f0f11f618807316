// What is done to features between convolutions on a CPU, in as few passes over memory as it takes:
// memory is what bounds it.
//
// Features lie with channels last: the channels of a pixel side by side, one stride from pixel to
// pixel and one from image to image, so that a slice of channels is a feature too. Images are
// divided among the threads. Sums are float, or double for features that are.
//
// A kernel writes to its first arguments what the operator of its name returns, given the rest;
// the operators, in Python, say what that is. Compiled and called by cpu.py.

#include <algorithm>
#include <cstdint>
#include <cstring>

#define INLINE __attribute__((always_inline))

namespace {

constexpr int GROUP = 4;  // pixels that share a weight once it is loaded
constexpr int TILE = 64;  // pixels of which one feature stays in the first cache
#ifdef __AVX512F__
constexpr int WIDEST = 16;  // channels that are computed on together
#else
constexpr int WIDEST = 8;
#endif

// A feature; or numbers without gaps, which have an address alone. None has the address zero.
struct Tensor {
  void *data;
  int64_t channels, image, pixel;  // strides
};

struct Tensors {
  int64_t count;
  const Tensor *of;
};

struct Shape {
  int64_t images, pixels, threads;
};

// The arguments of a kernel, read in order.
class Arguments {
public:
  Arguments(const int64_t *row, const double *scalars)
      : shape{row[0], row[1], row[2]}, next_(row + 3), scalar_(scalars) {}
  const Shape shape;
  Tensor feature() { return *features(1); }
  template <class A> A *numbers() { return static_cast<A *>(feature().data); }
  Tensors list() {
    const int64_t count = *next_++;
    return {count, features(count)};
  }
  double scalar() { return *scalar_++; }

private:
  const Tensor *features(int64_t count) {
    const Tensor *first = reinterpret_cast<const Tensor *>(next_);
    next_ += count * (sizeof(Tensor) / sizeof(int64_t));
    return first;
  }
  const int64_t *next_;
  const double *scalar_;
};

struct bfloat16 {
  uint16_t bits;
};

template <class A, int width> struct Lanes {
  typedef A type __attribute__((vector_size(width * sizeof(A))));
};
template <class A, int width> using Vector = typename Lanes<A, width>::type;

template <class To, class From> inline To same_bits(const From &from) {
  static_assert(sizeof(To) == sizeof(From));
  To to;
  memcpy(&to, &from, sizeof to);
  return to;
}

template <class A, class V> inline void load(const A *from, V &to) { memcpy(&to, from, sizeof to); }
template <class V> inline void load(const bfloat16 *from, V &to) {
  constexpr int width = sizeof(V) / sizeof(float);
  const auto halves = same_bits<Vector<uint16_t, width>>(
      *reinterpret_cast<const bfloat16(*)[width]>(from));
  to = same_bits<V>(__builtin_convertvector(halves, Vector<uint32_t, width>) << 16);
}

template <class A, class V> inline void store(const V &from, A *to) {
  memcpy(to, &from, sizeof from);
}
// Rounded to the nearest, ties to even; what is not a number stays so.
template <class V> inline void store(const V &from, bfloat16 *to) {
  constexpr int width = sizeof(V) / sizeof(float);
  const auto words = same_bits<Vector<uint32_t, width>>(from);
  const auto rounded = (words + 0x7fff + ((words >> 16) & 1)) >> 16;
  const auto quiet = (words >> 16) | 0x40;
  const auto halves =
      __builtin_convertvector(from == from ? rounded : quiet, Vector<uint16_t, width>);
  memcpy(to, &halves, sizeof halves);
}

// What a few pixels of an image have in a few channels.
template <class V, int size> struct Values {
  V of[size];
};
template <class V, int size>
inline Values<V, size> operator+(Values<V, size> x, const Values<V, size> &y) {
  for (int i = 0; i < size; ++i) x.of[i] += y.of[i];
  return x;
}
template <class V, int size>
inline Values<V, size> operator*(Values<V, size> x, const Values<V, size> &y) {
  for (int i = 0; i < size; ++i) x.of[i] *= y.of[i];
  return x;
}
template <class V, int size> inline Values<V, size> operator*(Values<V, size> x, const V &y) {
  for (V &z : x.of) z *= y;
  return x;
}
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

// Where those values are: every kernel is said in reads and writes of such groups. T is what
// features are of, A what is computed in.
template <class T, class A, int width, int size> struct Group {
  using Block = Values<Vector<A, width>, size>;
  int64_t image, pixel, c;

  T *at(const Tensor &feature, int i) const {
    return static_cast<T *>(feature.data) + image * feature.image + (pixel + i) * feature.pixel + c;
  }
  Block read(const Tensor &feature) const {
    Block x;
    for (int i = 0; i < size; ++i) load(at(feature, i), x.of[i]);
    return x;
  }
  void write(const Block &x, const Tensor &feature) const {
    for (int i = 0; i < size; ++i) store(x.of[i], at(feature, i));
  }
};

// Some channels of some pixels of an image.
template <class T, class A, int width> struct Lane {
  using V = Vector<A, width>;
  int64_t image, begin, end, channels, c;

  static V read_at(const A *from) {
    V x;
    load(from, x);
    return x;
  }
  template <class Body> INLINE void for_groups(const Body &body) const {
    int64_t pixel = begin;
    for (; pixel + GROUP <= end; pixel += GROUP) body(Group<T, A, width, GROUP>{image, pixel, c});
    for (; pixel < end; ++pixel) body(Group<T, A, width, 1>{image, pixel, c});
  }
  // Adds to numbers, images x channels, what body returns for each group.
  template <class Body> INLINE void add_up(A *to, Body body) const {
    to += image * channels + c;
    V sum = read_at(to);
    for_groups([&](auto group) INLINE { sum += body(group); });
    store(sum, to);
  }
  // Adds what the features have, times their weights, if they have any.
  template <class Group, class Block>
  INLINE Block with_terms(const Group &group, Block sum, const Tensors &features,
                          const Tensors &weights) const {
    for (int64_t j = 0; j < features.count; ++j) {
      const Block x = group.read(features.of[j]);
      sum = sum + (weights.count ? x * of_image(weights.of[j]) : x);
    }
    return sum;
  }
  // One number for each image and channel.
  V of_image(const Tensor &numbers) const {
    return read_at(static_cast<const A *>(numbers.data) + image * channels + c);
  }
};

template <class T, class A, int width = WIDEST, class Body>
INLINE inline void for_lanes(int64_t image, int64_t begin, int64_t end, int64_t channels,
                             const Body &body, int64_t c = 0) {
  for (; c + width <= channels; c += width) body(Lane<T, A, width>{image, begin, end, channels, c});
  constexpr int narrower = width > 4 ? width / 2 : 1;
  if constexpr (width > 1) for_lanes<T, A, narrower>(image, begin, end, channels, body, c);
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

template <class T, class A> void weighted_sum(Arguments given) {
  const Tensor out = given.feature();
  given.feature();
  const Tensors features = given.list(), weights = given.list();
  const Tensor mean = given.feature(), plus = given.feature(), gate = given.feature();
  const A ceiling = given.scalar();
  const int64_t pixels = given.shape.pixels;
  for_all<T, A>(given.shape, out.channels, [=](auto lane) INLINE {
    typename decltype(lane)::V of_channel = {};
    if (mean.data) of_channel = lane.of_image(mean) / A(pixels);
    lane.for_groups([=](auto group) INLINE {
      typename decltype(group)::Block sum;
      for (auto &of_pixel : sum.of) of_pixel = of_channel;
      if (plus.data) sum = sum + group.read(plus);
      sum = lane.with_terms(group, sum, features, weights);
      if (gate.data) sum = gated(sum, group.read(gate), ceiling);
      group.write(sum, out);
    });
  });
}

template <class T, class A> void channel_dots(Arguments given) {
  A *dots = given.numbers<A>();
  const Tensor gradient = given.feature();
  const Tensors features = given.list();
  const int64_t size = given.shape.images * gradient.channels;
  std::fill_n(dots, features.count * size, A(0));
  for_all<T, A>(given.shape, gradient.channels, [=](auto lane) INLINE {
    for (int64_t j = 0; j < features.count; ++j)
      lane.add_up(dots + j * size, [=](auto group) INLINE {
        return total(group.read(gradient) * group.read(features.of[j]));
      });
  });
}

template <class T, class A> void join(Arguments given) {
  const Tensor both = given.feature();
  A *means = given.numbers<A>();
  const Tensor also = given.feature(), before = given.feature();
  const Tensors features = given.list(), weights = given.list();
  const A ceiling = given.scalar();
  const int64_t channels = before.channels, pixels = given.shape.pixels;
  Tensor sum = both;
  sum.data = static_cast<T *>(both.data) + channels;
  std::fill_n(means, given.shape.images * channels, A(0));
  for_tiles(given.shape, [=](int64_t image, int64_t begin, int64_t end) INLINE {
    for_lanes<T, A>(image, begin, end, channels, [=](auto lane) INLINE {
      lane.add_up(means, [=](auto group) INLINE {
        const auto x = clamped(group.read(before), ceiling);
        group.write(x, both);
        if (also.data) group.write(x, also);
        return total(x) / A(pixels);
      });
    });
    for_lanes<T, A>(image, begin, end, both.channels - channels, [=](auto lane) INLINE {
      lane.for_groups([=](auto group) INLINE {
        const typename decltype(group)::Block none = {};
        group.write(lane.with_terms(group, none, features, weights), sum);
      });
    });
  });
}

}  // namespace

#define EXPORT(kernel)                                                                             \
  extern "C" void kernel##_float32(const int64_t *row, const double *scalars) {                    \
    kernel<float, float>(Arguments(row, scalars));                                                 \
  }                                                                                                \
  extern "C" void kernel##_float64(const int64_t *row, const double *scalars) {                    \
    kernel<double, double>(Arguments(row, scalars));                                               \
  }                                                                                                \
  extern "C" void kernel##_bfloat16(const int64_t *row, const double *scalars) {                   \
    kernel<bfloat16, float>(Arguments(row, scalars));                                              \
  }

EXPORT(weighted_sum)
EXPORT(channel_dots)
EXPORT(join)
