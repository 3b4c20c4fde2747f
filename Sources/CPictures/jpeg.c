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

static int decode(const uint8_t *bytes, size_t count, trips_picture_size *size, uint8_t *pixels, char *message) {
    struct jpeg_decompress_struct info;
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
        if (info.image_width != size->width || info.image_height != size->height || info.num_components > 3) {
            snprintf(message, 200, "%d colour components; expected 1 or 3", info.num_components);
            longjmp(errors.escape, 1);
        }
        info.out_color_space = JCS_RGB;
        info.mem->max_memory_to_use = 1L << 30;
        jpeg_start_decompress(&info);
        while (info.output_scanline < info.output_height) {
            JSAMPROW row = pixels + (size_t)info.output_scanline * 3 * size->width;
            jpeg_read_scanlines(&info, &row, 1);
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
