//! Writing captures that Wireshark and tcpdump read (the classic pcap format,
//! draft-ietf-opsawg-pcap).

use std::io::{self, Write};

use super::capture::FrameSink;
use super::frame::Frame;

/// Nanosecond timestamps, in the byte order of the writer: always little endian here.
const MAGIC: u32 = 0xa1b2_3c4d;
const LINK_TYPE_ETHERNET: u32 = 1;
const LINK_TYPE_RAW_IP: u32 = 101;
const SNAPSHOT_LEN: u32 = 262_144;

/// Writes frames to a file until a number of bytes is reached. Super-packets are written as the
/// kernel handed them over, in one piece.
pub struct PcapSink<W> {
    writer: W,
    bytes_left: u64,
    header_written: bool,
    skipped: u64,
    failure: Option<io::Error>,
}

impl<W: Write + Send + 'static> PcapSink<W> {
    /// Writes at most about `bytes_max` bytes to `writer`, which should be buffered.
    pub fn new(writer: W, bytes_max: u64) -> Self {
        Self {
            writer,
            bytes_left: bytes_max,
            header_written: false,
            skipped: 0,
            failure: None,
        }
    }

    /// Flushes, and returns the writer with the number of frames that were over the bound, or the
    /// first error of writing.
    pub fn finish(mut self) -> io::Result<(W, u64)> {
        if let Some(failure) = self.failure {
            return Err(failure);
        }
        self.writer.flush()?;
        Ok((self.writer, self.skipped))
    }

    fn write(&mut self, frame: &Frame<'_>) -> io::Result<()> {
        if !self.header_written {
            self.writer.write_all(&file_header(frame.ethernet))?;
            self.header_written = true;
        }
        let mut header = [0; 16];
        let length = frame.bytes.len() as u32;
        header[0..4].copy_from_slice(&(frame.time.as_secs() as u32).to_le_bytes());
        header[4..8].copy_from_slice(&frame.time.subsec_nanos().to_le_bytes());
        header[8..12].copy_from_slice(&length.to_le_bytes());
        header[12..16].copy_from_slice(&length.to_le_bytes());
        self.writer.write_all(&header)?;
        self.writer.write_all(frame.bytes)
    }
}

impl<W: Write + Send + 'static> FrameSink for PcapSink<W> {
    fn frame(&mut self, frame: &Frame<'_>) {
        let size = 16 + frame.bytes.len() as u64;
        if self.failure.is_some() || size > self.bytes_left {
            self.skipped += 1;
            return;
        }
        self.bytes_left -= size;
        self.failure = self.write(frame).err();
    }
}

fn file_header(ethernet: bool) -> [u8; 24] {
    let link_type = if ethernet {
        LINK_TYPE_ETHERNET
    } else {
        LINK_TYPE_RAW_IP
    };
    let mut header = [0; 24];
    header[0..4].copy_from_slice(&MAGIC.to_le_bytes());
    header[4..6].copy_from_slice(&2u16.to_le_bytes());
    header[6..8].copy_from_slice(&4u16.to_le_bytes());
    header[16..20].copy_from_slice(&SNAPSHOT_LEN.to_le_bytes());
    header[20..24].copy_from_slice(&link_type.to_le_bytes());
    header
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    #[test]
    fn frames_are_written_with_their_time_until_the_bound() {
        let mut sink = PcapSink::new(Vec::new(), 120);
        for second in 1..=3 {
            sink.frame(&Frame {
                time: Duration::new(second, 5),
                outgoing: true,
                ethernet: true,
                segment_size: None,
                bytes: &[0xab; 40],
            });
        }
        let (file, skipped) = sink.finish().unwrap();
        assert_eq!((file.len(), skipped), (24 + 2 * 56, 1));
        assert_eq!(file[20..24], [1, 0, 0, 0], "Ethernet");
        assert_eq!(
            file[24..40],
            [1, 0, 0, 0, 5, 0, 0, 0, 40, 0, 0, 0, 40, 0, 0, 0]
        );
    }
}
