#ifndef TRIPS_CHECKSUMS_H
#define TRIPS_CHECKSUMS_H

#include <stddef.h>
#include <stdint.h>

#ifdef __clang__
#pragma clang assume_nonnull begin
#endif

/// CRC-32 as in gzip, zip and PNG (polynomial 0xEDB88320, reflected), continued from `crc`; 0 to begin with.
uint32_t trips_crc32(uint32_t crc, const void *data, size_t size);
uint32_t trips_crc32_ref(uint32_t crc, const void *data, size_t size);

/// SHA-256 (FIPS 180-4) of data that comes piece by piece.
typedef struct {
    uint32_t state[8];
    uint64_t size;
    uint8_t pending[64];
} trips_sha256;

void trips_sha256_init(trips_sha256 *hash);
void trips_sha256_update(trips_sha256 *hash, const void *data, size_t size);
void trips_sha256_final(trips_sha256 *hash, uint8_t digest[_Nonnull 32]);

/// Takes whole blocks of 64 bytes into the state.
void trips_sha256_blocks(uint32_t state[_Nonnull 8], const uint8_t *data, size_t blocks);
void trips_sha256_blocks_ref(uint32_t state[_Nonnull 8], const uint8_t *data, size_t blocks);

#ifdef __clang__
#pragma clang assume_nonnull end
#endif

#endif
