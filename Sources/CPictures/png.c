#include "pictures.h"

#include <setjmp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <png.h>

typedef struct {
    const uint8_t *bytes;
    size_t left;
} source;

static void fail(png_structp png, png_const_charp text) {
    snprintf((char *)png_get_error_ptr(png), 200, "%s", text);
    longjmp(png_jmpbuf(png), 1);
}

static void ignore(png_structp png, png_const_charp text) {
    (void)png;
    (void)text;
}

static void take(png_structp png, png_bytep target, size_t count) {
    source *from = png_get_io_ptr(png);
    if (count > from->left) png_error(png, "the file ends too early");
    memcpy(target, from->bytes, count);
    from->bytes += count;
    from->left -= count;
}

static int decode(const uint8_t *bytes, size_t count, trips_picture_size *size, uint8_t *pixels, char *message) {
    source from = {bytes, count};
    png_structp png = png_create_read_struct(PNG_LIBPNG_VER_STRING, message, fail, ignore);
    png_infop info = png ? png_create_info_struct(png) : NULL;
    if (!info) {
        snprintf(message, 200, "no memory");
        png_destroy_read_struct(&png, NULL, NULL);
        return -1;
    }
    if (setjmp(png_jmpbuf(png))) {
        png_destroy_read_struct(&png, &info, NULL);
        return -1;
    }
    png_set_read_fn(png, &from, take);
    // Text and profiles may inflate to far more than the picture.
    png_set_chunk_malloc_max(png, 1 << 20);
    png_set_keep_unknown_chunks(png, PNG_HANDLE_CHUNK_NEVER, NULL, 0);
    png_read_info(png, info);
    if (!pixels) {
        size->width = png_get_image_width(png, info);
        size->height = png_get_image_height(png, info);
    } else {
        png_set_strip_16(png);
        png_set_expand(png);
        png_set_gray_to_rgb(png);
        png_set_strip_alpha(png);
        int passes = png_set_interlace_handling(png);
        png_read_update_info(png, info);
        if (png_get_rowbytes(png, info) != (size_t)3 * size->width || png_get_image_height(png, info) != size->height) {
            png_error(png, "rows that are not RGB");
        }
        for (int pass = 0; pass < passes; pass++) {
            for (uint32_t row = 0; row < size->height; row++) png_read_row(png, pixels + (size_t)row * 3 * size->width, NULL);
        }
        png_read_end(png, NULL);
    }
    png_destroy_read_struct(&png, &info, NULL);
    return 0;
}

int trips_png_size(const uint8_t *bytes, size_t count, trips_picture_size *size, char message[200]) {
    return decode(bytes, count, size, NULL, message);
}

int trips_png_decode(const uint8_t *bytes, size_t count, trips_picture_size size, uint8_t *pixels, char message[200]) {
    return decode(bytes, count, &size, pixels, message);
}

typedef struct {
    int (*write)(void *context, const uint8_t *bytes, size_t count);
    void *context;
} sink;

static void give(png_structp png, png_bytep bytes, size_t count) {
    sink *to = png_get_io_ptr(png);
    if (to->write(to->context, bytes, count)) png_error(png, "writing failed");
}

static void flush(png_structp png) { (void)png; }

int trips_png_encode(
    const uint8_t *pixels, trips_picture_size size, int (*write)(void *context, const uint8_t *bytes, size_t count),
    void *context, char message[200]) {
    sink to = {write, context};
    png_structp png = png_create_write_struct(PNG_LIBPNG_VER_STRING, message, fail, ignore);
    png_infop info = png ? png_create_info_struct(png) : NULL;
    if (!info) {
        snprintf(message, 200, "no memory");
        png_destroy_write_struct(&png, NULL);
        return -1;
    }
    if (setjmp(png_jmpbuf(png))) {
        png_destroy_write_struct(&png, &info);
        return -1;
    }
    png_set_write_fn(png, &to, give, flush);
    png_set_IHDR(
        png, info, size.width, size.height, 8, PNG_COLOR_TYPE_RGB, PNG_INTERLACE_NONE, PNG_COMPRESSION_TYPE_DEFAULT,
        PNG_FILTER_TYPE_DEFAULT);
    png_write_info(png, info);
    for (uint32_t row = 0; row < size.height; row++) png_write_row(png, pixels + (size_t)row * 3 * size.width);
    png_write_end(png, NULL);
    png_destroy_write_struct(&png, &info);
    return 0;
}
