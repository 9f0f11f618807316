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

template <class T> inline T *at(const Feature &feature, int64_t image, int64_t pixel, int64_t c) {
  return static_cast<T *>(feature.data) + image * feature.image + pixel * feature.pixel + c;
}

template <class Body> void for_images(const Shape &shape, const Body &body) {
#pragma omp parallel for num_threads(shape.threads) schedule(static)
  for (int64_t image = 0; image < shape.images; ++image) body(image);
}

template <class Body> void for_tiles(const Shape &shape, const Body &body) {
  for (int64_t pixel = 0; pixel < shape.pixels; pixel += TILE)
    body(pixel, std::min<int64_t>(pixel + TILE, shape.pixels));
}

// Calls body(c, n) for every run of n channels.
template <class Body> inline void for_lanes(int64_t channels, const Body &body) {
  int64_t c = 0;
#ifdef __AVX512F__
  for (; c + 16 <= channels; c += 16) body(c, All<16>{});
#endif
  for (; c + 8 <= channels; c += 8) body(c, All<8>{});
  if (c < channels) body(c, Left{static_cast<int>(channels - c)});
}

// Calls body(pixel, size) for every group of pixels, its size a constant for the compiler.
template <class Body> inline void for_groups(int64_t begin, int64_t end, const Body &body) {
  int64_t pixel = begin;
  for (; pixel + GROUP <= end; pixel += GROUP) body(pixel, std::integral_constant<int, GROUP>{});
  for (; pixel < end; ++pixel) body(pixel, std::integral_constant<int, 1>{});
}

// Adds what the features have in a group of pixels, times their weights.
template <class T, class A, int size, class N>
inline void add_terms(Vector<A, N> (&total)[size], const Terms &terms, int64_t image, int64_t pixel,
                      int64_t c, N n) {
  for (int64_t j = 0; j < terms.count; ++j) {
    const Term &term = terms.of[j];
    Vector<A, N> weight = Vector<A, N>{} + A(1), x;
    if (term.weight)
      load(static_cast<const A *>(term.weight) + image * term.image + c, weight, n);
    const T *from = at<T>(term.feature, image, pixel, c);
    for (int i = 0; i < size; ++i) {
      load(from + i * term.feature.pixel, x, n);
      total[i] += weight * x;
    }
  }
}

// Adds up a group's pixels.
template <class V> inline V total(const V (&of)[1]) { return of[0]; }
template <class V> inline V total(const V (&of)[GROUP]) {
  return (of[0] + of[1]) + (of[2] + of[3]);
}

// Adds a group's sum to a channel's.
template <class A, class V, class N> inline void add_to(A *sum, const V &more, N n) {
  V before;
  load(sum, before, n);
  store(before + more, sum, n);
}

// Adds to dots, terms x images x channels, the sums over the pixels of gradient times feature.
template <class T, class A>
inline void add_dots(const Shape &shape, const Feature &gradient, const Terms &terms, int64_t image,
                     int64_t begin, int64_t end, A *dots) {
  const int64_t channels = gradient.channels;
  for (int64_t j = 0; j < terms.count; ++j)
    for_groups(begin, end, [&](int64_t pixel, auto size) {
      for_lanes(channels, [&](int64_t c, auto n) {
        using V = Vector<A, decltype(n)>;
        V products[decltype(size)::value], x, y;
        for (int i = 0; i < size; ++i) {
          load(at<T>(gradient, image, pixel + i, c), x, n);
          load(at<T>(terms.of[j].feature, image, pixel + i, c), y, n);
          products[i] = x * y;
        }
        add_to(dots + (j * shape.images + image) * channels + c, total(products), n);
      });
    });
}

// Writes start + plus + the sum of the terms, and zero where `gate` is not between zero and ceiling.
template <class T, class A>
inline void write_sum(int64_t channels, const A *start, const Feature &plus, const Terms &terms,
                      const Feature &gate, A ceiling, const Feature &out, int64_t image,
                      int64_t begin, int64_t end) {
  for_groups(begin, end, [&](int64_t pixel, auto size) {
    for_lanes(channels, [&](int64_t c, auto n) {
      using V = Vector<A, decltype(n)>;
      V total[decltype(size)::value] = {}, x;
      if (start) {
        load(start + image * channels + c, x, n);
        for (int i = 0; i < size; ++i) total[i] = x;
      }
      if (plus.data)
        for (int i = 0; i < size; ++i) {
          load(at<T>(plus, image, pixel + i, c), x, n);
          total[i] += x;
        }
      add_terms<T, A>(total, terms, image, pixel, c, n);
      if (gate.data)
        for (int i = 0; i < size; ++i) {
          load(at<T>(gate, image, pixel + i, c), x, n);
          total[i] = ((x > A(0)) & (x < ceiling)) ? total[i] : V{};
        }
      for (int i = 0; i < size; ++i) store(total[i], at<T>(out, image, pixel + i, c), n);
    });
  });
}

// Writes `before`, kept between zero and ceiling, to one or two places, and adds to `sums` what it
// sums up to over the pixels.
template <class T, class A>
inline void write_rectified(int64_t channels, const Feature &before, A ceiling, const Feature &out,
                            const Feature &also, A *sums, int64_t image, int64_t begin,
                            int64_t end) {
  for_groups(begin, end, [&](int64_t pixel, auto size) {
    for_lanes(channels, [&](int64_t c, auto n) {
      using V = Vector<A, decltype(n)>;
      const V zero = {}, most = zero + ceiling;
      V y[decltype(size)::value];
      for (int i = 0; i < size; ++i) {
        load(at<T>(before, image, pixel + i, c), y[i], n);
        y[i] = y[i] < zero ? zero : y[i];
        y[i] = y[i] > most ? most : y[i];
        store(y[i], at<T>(out, image, pixel + i, c), n);
        if (also.data) store(y[i], at<T>(also, image, pixel + i, c), n);
      }
      add_to(sums + c, total(y), n);
    });
  });
}

template <class T, class A> void weighted_sum(Row row, double ceiling) {
  const Shape shape = row.shape();
  const Feature out = row.feature(), plus = row.feature(), gate = row.feature();
  const int64_t channels = out.channels;
  const A *start = row.address<const A>();
  const Terms terms = row.terms();
  for_images(shape, [&](int64_t image) {
    write_sum<T, A>(channels, start, plus, terms, gate, A(ceiling), out, image, 0, shape.pixels);
  });
}

template <class T, class A> void channel_dots(Row row) {
  const Shape shape = row.shape();
  const Feature gradient = row.feature();
  A *dots = row.address<A>();
  const Terms terms = row.terms();
  std::fill_n(dots, terms.count * shape.images * gradient.channels, A(0));
  for_images(shape, [&](int64_t image) {
    for_tiles(shape, [&](int64_t begin, int64_t end) {
      add_dots<T, A>(shape, gradient, terms, image, begin, end, dots);
    });
  });
}

template <class T, class A> void join(Row row, double ceiling) {
  const Shape shape = row.shape();
  const Feature before = row.feature(), both = row.feature(), feature = row.feature();
  const int64_t channels = before.channels;
  A *pooled = row.address<A>();
  const Feature beside = row.feature();
  const Terms terms = row.terms();
  for_images(shape, [&](int64_t image) {
    A *means = pooled + image * channels;
    std::fill_n(means, channels, A(0));
    for_tiles(shape, [&](int64_t begin, int64_t end) {
      write_rectified<T, A>(channels, before, A(ceiling), both, feature, means, image, begin, end);
      write_sum<T, A>(beside.channels, nullptr, {}, terms, {}, A(0), beside, image, begin, end);
    });
    for (int64_t c = 0; c < channels; ++c) means[c] /= shape.pixels;
  });
}

}  // namespace

#define EXPORT(name, T, A)                                                                         \
  extern "C" void weighted_sum_##name(const int64_t *row, double ceiling) {                        \
    weighted_sum<T, A>(Row(row), ceiling);                                                         \
  }                                                                                                \
  extern "C" void channel_dots_##name(const int64_t *row) { channel_dots<T, A>(Row(row)); }        \
  extern "C" void join_##name(const int64_t *row, double ceiling) {                                \
    join<T, A>(Row(row), ceiling);                                                                 \
  }

EXPORT(float32, float, float)
EXPORT(float64, double, double)
EXPORT(bfloat16, bfloat16, float)
