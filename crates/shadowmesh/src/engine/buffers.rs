//! Memory for reads of the device that wait in the fair queue.
//!
//! A read may be 64 KB long and is known to be shorter only afterwards. So everything is read into a
//! large buffer; a super-packet keeps it, and a packet moves into a small one, which is a copy of a
//! packet that is in the cache anyway, and lets a thousand of them wait in 2 MB and not in 64.
//! Buffers are reused last in, first out: with nothing waiting it is always the same one.

use shadowmesh_io::tun::READ_LEN_MAX;

/// Holds a packet of the usual MTU of 1420 with its virtio header, and one of 1500 and 2000 as well.
pub const SMALL_LEN: usize = 2048;

/// One read of the device.
#[derive(Debug)]
pub struct Buffer {
    bytes: Box<[u8]>,
    len: usize,
}

impl Buffer {
    /// What was read.
    pub fn filled(&mut self) -> &mut [u8] {
        &mut self.bytes[..self.len]
    }

    /// Bytes that were read.
    pub fn len(&self) -> usize {
        self.len
    }

    /// Bytes of memory this takes.
    pub fn memory(&self) -> usize {
        self.bytes.len()
    }
}

/// Buffers that are not in use. As many are made as wait at once, which the fair queue limits.
#[derive(Debug, Default)]
pub struct Buffers {
    small: Vec<Box<[u8]>>,
    large: Vec<Box<[u8]>>,
}

impl Buffers {
    /// Fills a buffer with `read`, which is given room for the largest read. HOT PATH.
    pub fn fill<E>(
        &mut self,
        read: impl FnOnce(&mut [u8]) -> Result<usize, E>,
    ) -> Result<Buffer, E> {
        let mut large = take(&mut self.large, READ_LEN_MAX);
        let len = match read(&mut large) {
            Ok(len) => len,
            Err(error) => {
                self.large.push(large);
                return Err(error);
            }
        };
        if len > SMALL_LEN {
            return Ok(Buffer { bytes: large, len });
        }
        let mut small = take(&mut self.small, SMALL_LEN);
        small[..len].copy_from_slice(&large[..len]);
        self.large.push(large);
        Ok(Buffer { bytes: small, len })
    }

    /// Takes a buffer back. HOT PATH.
    pub fn free(&mut self, buffer: Buffer) {
        match buffer.bytes.len() {
            SMALL_LEN => self.small.push(buffer.bytes),
            _ => self.large.push(buffer.bytes),
        }
    }
}

fn take(free: &mut Vec<Box<[u8]>>, len: usize) -> Box<[u8]> {
    free.pop()
        .unwrap_or_else(|| vec![0; len].into_boxed_slice())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(buffers: &mut Buffers, len: usize) -> Buffer {
        let fill = |room: &mut [u8]| {
            room[..len].fill(7);
            Ok::<_, ()>(len)
        };
        buffers.fill(fill).unwrap()
    }

    #[test]
    fn a_packet_takes_little_memory_and_a_super_packet_is_not_copied() {
        let mut buffers = Buffers::default();
        for (len, memory) in [
            (0, SMALL_LEN),
            (SMALL_LEN, SMALL_LEN),
            (SMALL_LEN + 1, READ_LEN_MAX),
            (READ_LEN_MAX, READ_LEN_MAX),
        ] {
            let mut buffer = read(&mut buffers, len);
            assert_eq!(buffer.filled(), vec![7; len]);
            assert_eq!(buffer.memory(), memory);
            buffers.free(buffer);
        }
        assert_eq!((buffers.small.len(), buffers.large.len()), (1, 1));
    }

    #[test]
    fn a_refused_read_costs_no_buffer() {
        let mut buffers = Buffers::default();
        for _ in 0..3 {
            assert!(buffers.fill(|_| Err::<usize, ()>(())).is_err());
        }
        assert_eq!(buffers.large.len(), 1);
    }
}
