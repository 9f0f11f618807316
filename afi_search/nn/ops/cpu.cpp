// What is done to features between convolutions on a CPU, in as few passes over memory as it takes:
// memory is what bounds it. Plain loops, of which the compiler makes vectors.
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
#include <type_traits>

#define INLINE __attribute__((always_inline))

namespace {

constexpr int WIDEST = 16;  // channels that are computed on together
constexpr int MOST = 64;    // pixels whose sums stay in the first cache

// A feature; or numbers without gaps, which have an address alone. None has the address zero.
struct Tensor {
  void *data;
  int64_t channels, image, pixel;  // strides
};

struct Tensors {
  int64_t count;
  const Tensor *of;
};

// The arguments of a kernel, read in order.
struct Arguments {
  const int64_t *row;
  const double *scalars;
  const int64_t images = *row++, pixels = *row++, threads = *row++;

  Tensors list(int64_t count) {
    const auto first = reinterpret_cast<const Tensor *>(row);
    row += count * (sizeof(Tensor) / sizeof(int64_t));
    return {count, first};
  }
  Tensors list() { return list(*row++); }
  Tensor feature() { return *list(1).of; }
  template <class A> A *numbers() { return static_cast<A *>(feature().data); }
  double scalar() { return *scalars++; }
};

struct bfloat16 {
  uint16_t bits;
  bfloat16() = default;
  // Rounded to the nearest, ties to even; what is not a number stays so.
  INLINE bfloat16(float x) {
    uint32_t word;
    memcpy(&word, &x, sizeof word);
    bits = x == x ? (word + 0x7fff + ((word >> 16) & 1)) >> 16 : (word >> 16) | 0x40;
  }
  INLINE operator float() const {
    const uint32_t word = uint32_t(bits) << 16;
    float x;
    memcpy(&x, &word, sizeof x);
    return x;
  }
};

// What some pixels of an image have in some channels, as numbers to compute with. T is what
// features are of, A what is computed in.
template <class T, class A, int width> struct Tile {
  int64_t image, pixel, count, c;
  A of[MOST][width];

  T *at(const Tensor &feature, int p) const {
    return static_cast<T *>(feature.data) + image * feature.image + (pixel + p) * feature.pixel + c;
  }
  // The tile's part of numbers, images x channels.
  A *at(void *numbers, int64_t channels) const {
    return static_cast<A *>(numbers) + image * channels + c;
  }
  // Calls body with each of its numbers, what a feature has there, and the number of the channel.
  template <class Body> INLINE void with(const Tensor &feature, const Body &body) {
    for (int p = 0; p < count; ++p) {
      const T *x = at(feature, p);
      for (int l = 0; l < width; ++l) body(of[p][l], A(x[l]), l);
    }
  }
  INLINE void fill(const A *values) {
    for (int p = 0; p < count; ++p) std::copy_n(values, width, of[p]);
  }
  // Adds what the features have, times their weights, if they have any; two at a time.
  INLINE void add(const Tensors &features, const Tensors &weights, int64_t channels) {
    const auto weight = [&](int64_t j, int l) INLINE {
      return weights.count ? at(weights.of[j].data, channels)[l] : A(1);
    };
    A v[width], w[width];
    int64_t j = 0;
    for (; j + 1 < features.count; j += 2) {
      for (int l = 0; l < width; ++l) v[l] = weight(j, l), w[l] = weight(j + 1, l);
      for (int p = 0; p < count; ++p) {
        const T *x = at(features.of[j], p), *z = at(features.of[j + 1], p);
        for (int l = 0; l < width; ++l) of[p][l] = of[p][l] + v[l] * A(x[l]) + w[l] * A(z[l]);
      }
    }
    if (j == features.count) return;
    for (int l = 0; l < width; ++l) v[l] = weight(j, l);
    with(features.of[j], [&](A &y, A x, int l) INLINE { y += v[l] * x; });
  }
  INLINE void write(const Tensor &feature) {
    for (int p = 0; p < count; ++p) {
      T *y = at(feature, p);
      for (int l = 0; l < width; ++l) y[l] = T(of[p][l]);
    }
  }
};

template <class T, class A, int width = WIDEST, class Body>
INLINE inline void for_channels(int64_t image, int64_t pixel, int64_t count, int64_t channels,
                         const Body &body, int64_t c = 0) {
  for (; c + width <= channels; c += width) {
    Tile<T, A, width> tile{image, pixel, count, c};
    body(tile, std::integral_constant<int, width>());
  }
  constexpr int narrower = width > 4 ? width / 2 : 1;
  if constexpr (width > 1) for_channels<T, A, narrower>(image, pixel, count, channels, body, c);
}
template <class T, class A, class Body>
void for_tiles(const Arguments &given, int64_t channels, const Body &body) {
#pragma omp parallel for num_threads(given.threads) schedule(static)
  for (int64_t image = 0; image < given.images; ++image)
    for (int64_t pixel = 0; pixel < given.pixels; pixel += MOST)
      for_channels<T, A>(image, pixel, std::min<int64_t>(MOST, given.pixels - pixel), channels, body);
}

template <class T, class A> void weighted_sum(Arguments given) {
  const Tensor out = given.feature();
  given.feature();
  const Tensors features = given.list(), weights = given.list();
  const Tensor mean = given.feature(), plus = given.feature(), gate = given.feature();
  const A ceiling = given.scalar(), pixels = given.pixels;
  for_tiles<T, A>(given, out.channels, [=](auto &tile, auto width) INLINE {
    A first[width] = {};
    if (mean.data)
      for (int l = 0; l < width; ++l) first[l] = tile.at(mean.data, out.channels)[l] / pixels;
    if (plus.data)
      tile.with(plus, [&](A &y, A x, int l) INLINE { y = first[l] + x; });
    else
      tile.fill(first);
    tile.add(features, weights, out.channels);
    if (gate.data)
      tile.with(gate, [=](A &y, A x, int) INLINE { y = (x > 0) & (x < ceiling) ? y : A(0); });
    tile.write(out);
  });
}

template <class T, class A> void channel_dots(Arguments given) {
  A *dots = given.numbers<A>();
  const Tensor gradient = given.feature();
  const Tensors features = given.list();
  const int64_t channels = gradient.channels, size = given.images * channels;
  std::fill_n(dots, features.count * size, A(0));
  for_tiles<T, A>(given, channels, [=](auto &tile, auto width) INLINE {
    for (int64_t j = 0; j < features.count; ++j) {
      A sums[width] = {};
      for (int p = 0; p < tile.count; ++p)
        for (int l = 0; l < width; ++l)
          sums[l] += A(tile.at(gradient, p)[l]) * A(tile.at(features.of[j], p)[l]);
      for (int l = 0; l < width; ++l) tile.at(dots + j * size, channels)[l] += sums[l];
    }
  });
}

template <class T, class A> void join(Arguments given) {
  const Tensor both = given.feature();
  A *means = given.numbers<A>();
  const Tensor also = given.feature(), before = given.feature();
  const Tensors features = given.list(), weights = given.list();
  const A ceiling = given.scalar(), pixels = given.pixels;
  const int64_t channels = before.channels, others = both.channels - channels;
  Tensor sum = both;
  sum.data = static_cast<T *>(both.data) + channels;
  std::fill_n(means, given.images * channels, A(0));
  for_tiles<T, A>(given, channels, [=](auto &tile, auto width) INLINE {
    A sums[width] = {};
    tile.with(before, [&](A &y, A x, int l) INLINE {
      y = std::min(std::max(x, A(0)), ceiling);
      sums[l] += y;
    });
    for (int l = 0; l < width; ++l) tile.at(means, channels)[l] += sums[l] / pixels;
    tile.write(both);
    if (also.data) tile.write(also);
  });
  for_tiles<T, A>(given, others, [=](auto &tile, auto width) INLINE {
    const A zeros[width] = {};
    tile.fill(zeros);
    tile.add(features, weights, others);
    tile.write(sum);
  });
}

}  // namespace

#define EXPORT(kernel, name, T, A)                                                                 \
  extern "C" void kernel##_##name(const int64_t *row, const double *scalars) {                     \
    kernel<T, A>(Arguments{row, scalars});                                                         \
  }
#define EXPORT_ALL(kernel)                                                                         \
  EXPORT(kernel, float32, float, float)                                                            \
  EXPORT(kernel, float64, double, double)                                                          \
  EXPORT(kernel, bfloat16, bfloat16, float)

EXPORT_ALL(weighted_sum)
EXPORT_ALL(channel_dots)
EXPORT_ALL(join)
