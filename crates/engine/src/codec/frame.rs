//! One frame in, one frame out. Each carries a checksum of its content: zstd and lz4 content checksums, gzip's CRC-32.

use pg_ark_contract::settings::{Codec, Compression};
use pg_ark_contract::{Error, ErrorKind, Result};
use std::io::{Read, Write};

/// Bytes of tar that a frame aims at.
pub const FRAME_SIZE: usize = 2 << 20;
/// No frame holds more bytes of tar than this; a reader refuses one that does.
pub const MAX_FRAME: usize = 16 << 20;
/// Largest window of a zstd stream, as a power of two: a frame's content fits into it, so no frame needs a larger one.
const WINDOW_LOG: u32 = MAX_FRAME.ilog2();
/// No frame has more stored bytes than this: `MAX_FRAME` that did not compress, and headers.
pub const MAX_STORED_FRAME: usize = MAX_FRAME + (1 << 20);

/// Makes frames.
pub struct Encoder {
    compression: Compression,
    zstd: Option<zstd::bulk::Compressor<'static>>,
    scratch: Vec<u8>,
}

impl Encoder {
    /// # Errors
    /// When the compressor refuses its parameters.
    pub fn new(compression: Compression) -> Result<Self> {
        let zstd = match compression.codec {
            Codec::Zstd => Some(new_zstd(compression.level).map_err(|e| encoding(&e))?),
            _ => None,
        };
        Ok(Encoder { compression, zstd, scratch: Vec::new() })
    }

    /// Encodes `raw` (at most [`MAX_FRAME`] bytes) as one frame.
    ///
    /// # Errors
    /// When the compressor fails.
    pub fn encode(&mut self, raw: &[u8]) -> Result<Vec<u8>> {
        let made = match (&mut self.zstd, self.compression.codec) {
            (Some(zstd), _) => {
                // The result is copied so that it holds no more memory than it has bytes.
                self.scratch.clear();
                self.scratch.reserve(zstd::zstd_safe::compress_bound(raw.len()));
                zstd.compress_to_buffer(raw, &mut self.scratch).map(|_| self.scratch.as_slice().to_vec())
            }
            (None, Codec::Gzip) => gzip(raw, self.compression.level),
            (None, Codec::Lz4) => lz4(raw),
            (None, _) => Ok(raw.to_vec()),
        };
        made.map_err(|e| encoding(&e))
    }
}

fn new_zstd(level: i32) -> std::io::Result<zstd::bulk::Compressor<'static>> {
    let mut compressor = zstd::bulk::Compressor::new(level)?;
    compressor.include_checksum(true)?;
    compressor.include_contentsize(true)?;
    if level == 1 {
        // Matches of 6 bytes instead of 7: on PostgreSQL's pages a tenth to a quarter faster, and no larger.
        compressor.set_parameter(zstd::zstd_safe::CParameter::MinMatch(6))?;
    }
    Ok(compressor)
}

fn gzip(raw: &[u8], level: i32) -> std::io::Result<Vec<u8>> {
    let level = flate2::Compression::new(level.unsigned_abs());
    let mut encoder = flate2::write::GzEncoder::new(Vec::with_capacity(raw.len() / 2), level);
    encoder.write_all(raw)?;
    encoder.finish()
}

fn lz4(raw: &[u8]) -> std::io::Result<Vec<u8>> {
    let mut encoder = lz4::EncoderBuilder::new()
        .block_size(lz4::BlockSize::Max4MB)
        .checksum(lz4::ContentChecksum::ChecksumEnabled)
        .content_size(raw.len() as u64)
        .build(Vec::with_capacity(raw.len() / 2))?;
    encoder.write_all(raw)?;
    let (out, result) = encoder.finish();
    result.map(|()| out)
}

/// Opens frames. Whoever opens many keeps one: the decompressor's memory is made once.
pub struct Decoder {
    codec: Codec,
    zstd: Option<zstd::bulk::Decompressor<'static>>,
}

impl Decoder {
    /// A decoder of this codec's frames.
    ///
    /// # Errors
    /// When the decompressor cannot be made.
    pub fn new(codec: Codec) -> Result<Self> {
        let zstd =
            match codec {
                Codec::Zstd => Some(zstd::bulk::Decompressor::new().map_err(|e| {
                    Error::new(ErrorKind::Internal, "could not make a decompressor").detail(e)
                })?),
                _ => None,
            };
        Ok(Decoder { codec, zstd })
    }

    /// Decodes one frame into `out`, replacing its content.
    ///
    /// # Errors
    /// `Corrupt` when the frame is damaged or its content is not exactly `size` bytes.
    pub fn decode(&mut self, stored: &[u8], size: usize, out: &mut Vec<u8>) -> Result<()> {
        out.clear();
        if size > MAX_FRAME {
            return Err(damaged(format!("a frame of {size} bytes is larger than any frame")));
        }
        out.reserve_exact(size);
        let done = match (&mut self.zstd, self.codec) {
            (Some(zstd), _) => zstd.decompress_to_buffer(stored, out).map(|_| ()),
            (None, Codec::None) => {
                out.extend_from_slice(&stored[..stored.len().min(size + 1)]);
                Ok(())
            }
            (None, codec) => stream(codec, stored)
                .and_then(|reader| reader.take(size as u64 + 1).read_to_end(out).map(|_| ())),
        };
        done.map_err(|e| damaged(format!("a frame does not decode: {e}")))?;
        if out.len() != size {
            return Err(damaged(format!("a frame holds {} bytes instead of {size}", out.len())));
        }
        Ok(())
    }
}

/// Decodes one frame into `out`, replacing its content.
///
/// # Errors
/// As [`Decoder::decode`].
pub fn decode(codec: Codec, stored: &[u8], size: usize, out: &mut Vec<u8>) -> Result<()> {
    Decoder::new(codec)?.decode(stored, size, out)
}

/// Decodes a whole archive as one stream, frame after frame.
///
/// # Errors
/// When the decoder cannot be made; damage shows as I/O errors while reading.
pub fn stream<'a>(codec: Codec, stored: impl Read + Send + 'a) -> std::io::Result<Box<dyn Read + Send + 'a>> {
    Ok(match codec {
        Codec::Zstd => {
            let mut decoder = zstd::stream::read::Decoder::new(stored)?;
            decoder.window_log_max(WINDOW_LOG)?;
            Box::new(decoder)
        }
        Codec::Gzip => Box::new(flate2::read::MultiGzDecoder::new(stored)),
        Codec::Lz4 => Box::new(Lz4Frames {
            inner: Some(lz4::Decoder::new(std::io::BufReader::with_capacity(1 << 16, stored))?),
        }),
        Codec::None => Box::new(stored),
    })
}

/// Reads concatenated lz4 frames: the library's decoder stops after the first.
struct Lz4Frames<R: std::io::BufRead> {
    inner: Option<lz4::Decoder<R>>,
}

impl<R: std::io::BufRead> Read for Lz4Frames<R> {
    fn read(&mut self, buf: &mut [u8]) -> std::io::Result<usize> {
        loop {
            let Some(decoder) = &mut self.inner else { return Ok(0) };
            let n = decoder.read(buf)?;
            if n > 0 || buf.is_empty() {
                return Ok(n);
            }
            let Some(decoder) = self.inner.take() else { return Ok(0) };
            let (mut rest, result) = decoder.finish();
            // Its kind is Interrupted, which readers retry.
            result.map_err(|e| std::io::Error::new(std::io::ErrorKind::UnexpectedEof, e.to_string()))?;
            if rest.fill_buf()?.is_empty() {
                return Ok(0);
            }
            self.inner = Some(lz4::Decoder::new(rest)?);
        }
    }
}

fn encoding(e: &std::io::Error) -> Error {
    Error::new(ErrorKind::Internal, "could not compress a frame").detail(e)
}

fn damaged(message: String) -> Error {
    Error::new(ErrorKind::Corrupt, message)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const CODECS: [&str; 5] = ["zstd:1", "zstd:9", "gzip:6", "lz4", "none"];

    fn sample(len: usize) -> Vec<u8> {
        (0..len).map(|i| (i / 7 % 251) as u8).collect()
    }

    #[test]
    fn frames_decode_alone_and_as_a_stream() {
        for text in CODECS {
            let compression: Compression = text.parse().unwrap();
            let mut encoder = Encoder::new(compression).unwrap();
            let mut all = Vec::new();
            let mut expected = Vec::new();
            for len in [0, 1, 512, 100_000, FRAME_SIZE, 3] {
                let raw = sample(len);
                let stored = encoder.encode(&raw).unwrap();
                let mut out = Vec::new();
                decode(compression.codec, &stored, len, &mut out).unwrap();
                assert_eq!(out, raw, "{text}");
                all.extend_from_slice(&stored);
                expected.extend_from_slice(&raw);
            }
            let mut out = Vec::new();
            stream(compression.codec, &all[..]).unwrap().read_to_end(&mut out).unwrap();
            assert!(out == expected, "{text}");
        }
    }

    #[test]
    fn a_flipped_byte_is_found() {
        for text in ["zstd:1", "gzip:6", "lz4"] {
            let compression: Compression = text.parse().unwrap();
            let raw = sample(50_000);
            let stored = Encoder::new(compression).unwrap().encode(&raw).unwrap();
            let mut out = Vec::new();
            for at in (0..stored.len()).step_by(stored.len() / 50 + 1) {
                let mut bad = stored.clone();
                bad[at] ^= 0x10;
                let result = decode(compression.codec, &bad, raw.len(), &mut out);
                assert!(result.is_err() || out == raw, "{text}: byte {at}");
            }
            assert!(decode(compression.codec, &stored[..stored.len() - 1], raw.len(), &mut out).is_err());
        }
    }

    #[test]
    fn a_frame_that_expands_too_far_is_refused() {
        for text in CODECS {
            let compression: Compression = text.parse().unwrap();
            let stored = Encoder::new(compression).unwrap().encode(&sample(1 << 20)).unwrap();
            let mut out = Vec::new();
            assert!(decode(compression.codec, &stored, 1000, &mut out).is_err(), "{text}");
            assert!(out.capacity() < 1 << 20, "{text}: {}", out.capacity());
            assert!(decode(compression.codec, &stored, usize::MAX, &mut out).is_err());
        }
    }

    #[test]
    fn a_window_larger_than_any_frame_is_refused() {
        let frame = |log: u32| {
            let mut encoder = zstd::stream::write::Encoder::new(Vec::new(), 1).unwrap();
            encoder.set_parameter(zstd::zstd_safe::CParameter::WindowLog(log)).unwrap();
            // Nobody knows the length beforehand, so the window stands in the header.
            encoder.write_all(&sample(1000)).unwrap();
            encoder.finish().unwrap()
        };
        let read = |stored: &[u8]| stream(Codec::Zstd, stored).unwrap().read_to_end(&mut Vec::new());
        assert_eq!(read(&frame(WINDOW_LOG)).unwrap(), 1000);
        assert!(read(&frame(WINDOW_LOG + 1)).is_err());
        assert!(read(&frame(27)).is_err());
    }

    proptest! {
        #[test]
        fn nonsense_never_panics(bytes in proptest::collection::vec(any::<u8>(), 0..2000)) {
            for codec in [Codec::Zstd, Codec::Gzip, Codec::Lz4, Codec::None] {
                let _ = decode(codec, &bytes, 1000, &mut Vec::new());
                if let Ok(reader) = stream(codec, &bytes[..]) {
                    let _ = reader.take(1 << 20).read_to_end(&mut Vec::new());
                }
            }
        }
    }
}
