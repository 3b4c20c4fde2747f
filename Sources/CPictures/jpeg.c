#include "pictures.h"

#include <setjmp.h>
#include <stdio.h>
#include <string.h>
#include <jpeglib.h>
#include <jerror.h>

// libjpeg ends the process on an error unless its handler does not return: ours leaves by longjmp.
typedef struct {
    struct jpeg_error_mgr base;
    jmp_buf escape;
    char *message;
} handler;

static void fail(j_common_ptr info) {
    handler *self = (handler *)info->err;
    char text[JMSG_LENGTH_MAX];
    info->err->format_message(info, text);
    snprintf(self->message, 200, "%s", text);
    longjmp(self->escape, 1);
}

// Cameras and programs leave such traces in files whose pixels are all there.
static int is_harmless(int code) {
    switch (code) {
    case JWRN_EXTRANEOUS_DATA:
    case JWRN_JFIF_MAJOR:
    case JWRN_ADOBE_XFORM:
    case JWRN_NOT_SEQUENTIAL:
        return 1;
    default:
        return 0;
    }
}

// Any other warning means damaged data (a file that ends early, say): the picture is not what it was.
static void emit(j_common_ptr info, int level) {
    if (level < 0 && !is_harmless(info->err->msg_code)) fail(info);
}

// Inks are stored as what they leave of white, as Adobe's programs do whatever the file says, and multiplied as Pillow does:
// x y / 255, rounded.
static void rgb_of_cmyk(uint8_t *rgb, const uint8_t *cmyk, size_t count) {
    for (size_t i = 0; i < count; i++, cmyk += 4) {
        for (int channel = 0; channel < 3; channel++) {
            unsigned product = (255u - cmyk[channel]) * cmyk[3] + 128;
            *rgb++ = (uint8_t)(cmyk[3] - (((product >> 8) + product) >> 8));
        }
    }
}

// Pictures have a dozen scans or so. Each passes over all coefficients, however few bytes it takes: a small file must not ask for
// hours.
enum { MOST_SCANS = 500 };

static void bound_scans(j_common_ptr info) {
    int scan = ((j_decompress_ptr)info)->input_scan_number;
    if (scan <= MOST_SCANS) return;
    handler *self = (handler *)info->err;
    snprintf(self->message, 200, "more than %d scans", MOST_SCANS);
    longjmp(self->escape, 1);
}

static int decode(const uint8_t *bytes, size_t count, trips_picture_size *size, uint8_t *pixels, char *message) {
    struct jpeg_decompress_struct info;
    struct jpeg_progress_mgr progress = {.progress_monitor = bound_scans};
    handler errors;
    memset(&info, 0, sizeof info);
    info.err = jpeg_std_error(&errors.base);
    errors.base.error_exit = fail;
    errors.base.emit_message = emit;
    errors.message = message;
    if (setjmp(errors.escape)) {
        jpeg_destroy_decompress(&info);
        return -1;
    }
    jpeg_create_decompress(&info);
    jpeg_mem_src(&info, bytes, count);
    jpeg_read_header(&info, TRUE);
    if (!pixels) {
        size->width = info.image_width;
        size->height = info.image_height;
    } else {
        if (info.image_width != size->width || info.image_height != size->height) {
            snprintf(message, 200, "%u x %u pixels; expected %u x %u", info.image_width, info.image_height, size->width,
                     size->height);
            longjmp(errors.escape, 1);
        }
        if (info.num_components > 4) {
            snprintf(message, 200, "%d colour components; expected 1, 3 or 4", info.num_components);
            longjmp(errors.escape, 1);
        }
        int inks = info.num_components == 4;
        info.out_color_space = inks ? JCS_CMYK : JCS_RGB;
        info.mem->max_memory_to_use = 1L << 30;
        info.progress = &progress;
        jpeg_start_decompress(&info);
        JSAMPARRAY ink = inks ? info.mem->alloc_sarray((j_common_ptr)&info, JPOOL_IMAGE, 4 * size->width, 1) : NULL;
        while (info.output_scanline < info.output_height) {
            JSAMPROW row = pixels + (size_t)info.output_scanline * 3 * size->width;
            jpeg_read_scanlines(&info, inks ? ink : &row, 1);
            if (inks) rgb_of_cmyk(row, ink[0], size->width);
        }
        jpeg_finish_decompress(&info);
    }
    jpeg_destroy_decompress(&info);
    return 0;
}

int trips_jpeg_size(const uint8_t *bytes, size_t count, trips_picture_size *size, char message[200]) {
    return decode(bytes, count, size, NULL, message);
}

int trips_jpeg_decode(const uint8_t *bytes, size_t count, trips_picture_size size, uint8_t *pixels, char message[200]) {
    return decode(bytes, count, &size, pixels, message);
}
