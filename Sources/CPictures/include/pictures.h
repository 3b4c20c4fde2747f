#ifndef TRIPS_PICTURES_H
#define TRIPS_PICTURES_H

#include <stddef.h>
#include <stdint.h>

/// Size of a picture, as its header states it.
typedef struct {
    uint32_t width;
    uint32_t height;
} trips_picture_size;

/// Reads the size from the header of a JPEG or PNG file in memory. 0, or -1 with a message.
int trips_jpeg_size(const uint8_t *bytes, size_t count, trips_picture_size *size, char message[200]);
int trips_png_size(const uint8_t *bytes, size_t count, trips_picture_size *size, char message[200]);

/// Decodes to rows of 8-bit RGB in `pixels` (3 · width · height bytes). 0, or -1 with a message.
/// CMYK and YCCK become RGB as in Pillow. Transparency is dropped, not blended; gamma and colour profiles are left alone; 16 bits keep their high byte.
int trips_jpeg_decode(const uint8_t *bytes, size_t count, trips_picture_size size, uint8_t *pixels, char message[200]);
int trips_png_decode(const uint8_t *bytes, size_t count, trips_picture_size size, uint8_t *pixels, char message[200]);

/// Encodes 8-bit RGB as PNG. `write` takes the bytes and gives 0, or -1 to stop.
int trips_png_encode(
    const uint8_t *pixels, trips_picture_size size, int (*write)(void *context, const uint8_t *bytes, size_t count),
    void *context, char message[200]);

#endif
