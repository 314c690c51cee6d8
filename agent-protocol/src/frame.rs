//! Frames: how channels share one byte stream.
//!
//! A frame is an 8-byte head, `payload length` and `channel` as little-endian `u32`, then the payload.
//! An empty frame on a data channel says that no more bytes will come on it.

use crate::Violation;

/// Longest payload of any frame, in bytes. Only a `Start` message comes near it.
pub const FRAME_MAX: usize = 1 << 20;

/// Longest payload of a data frame that our own ends send, in bytes. Small, so that control messages
/// do not wait long behind bulk data.
pub const DATA_MAX: usize = 16 << 10;

const HEAD: usize = 8;

/// One frame.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Frame {
    pub channel: u32,
    pub payload: Vec<u8>,
}

impl Frame {
    /// Appends the frame to `out`.
    ///
    /// # Panics
    /// If the payload is longer than [`FRAME_MAX`]: our own ends never build one.
    pub fn encode(&self, out: &mut Vec<u8>) {
        encode(self.channel, &self.payload, out);
    }
}

/// Appends a frame with `payload` to `out`.
///
/// # Panics
/// If `payload` is longer than [`FRAME_MAX`].
pub fn encode(channel: u32, payload: &[u8], out: &mut Vec<u8>) {
    assert!(payload.len() <= FRAME_MAX, "a frame of {} bytes is our bug", payload.len());
    let len = u32::try_from(payload.len()).expect("FRAME_MAX fits in 32 bits");
    out.extend_from_slice(&len.to_le_bytes());
    out.extend_from_slice(&channel.to_le_bytes());
    out.extend_from_slice(payload);
}

/// Cuts a byte stream into frames, whatever pieces it arrives in.
#[derive(Debug, Default)]
pub struct Decoder {
    bytes: Vec<u8>,
    taken: usize,
}

impl Decoder {
    /// Most bytes a decoder ever holds beyond one `push`.
    pub const HELD_MAX: usize = HEAD + FRAME_MAX;

    /// Adds what has arrived. Call [`Self::next_frame`] until it says `None` after each push.
    pub fn push(&mut self, bytes: &[u8]) {
        self.bytes.drain(..self.taken);
        self.taken = 0;
        self.bytes.extend_from_slice(bytes);
    }

    /// The next whole frame, if there is one.
    ///
    /// # Errors
    /// A length above [`FRAME_MAX`]; the stream is useless from there on.
    pub fn next_frame(&mut self) -> Result<Option<Frame>, Violation> {
        let rest = &self.bytes[self.taken..];
        let Some((head, rest)) = rest.split_first_chunk::<HEAD>() else { return Ok(None) };
        let [l0, l1, l2, l3, c0, c1, c2, c3] = *head;
        let len = u32::from_le_bytes([l0, l1, l2, l3]) as usize;
        if len > FRAME_MAX {
            return Err(Violation(format!("frame of {len} bytes, at most {FRAME_MAX} are allowed")));
        }
        let Some(payload) = rest.get(..len) else { return Ok(None) };
        let frame = Frame { channel: u32::from_le_bytes([c0, c1, c2, c3]), payload: payload.to_vec() };
        self.taken += HEAD + len;
        Ok(Some(frame))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn frames(bytes: &[u8], piece: usize) -> Result<Vec<Frame>, Violation> {
        let mut decoder = Decoder::default();
        let mut got = Vec::new();
        for chunk in bytes.chunks(piece) {
            decoder.push(chunk);
            while let Some(frame) = decoder.next_frame()? {
                got.push(frame);
            }
        }
        Ok(got)
    }

    #[test]
    fn frames_survive_any_cut_of_the_stream() {
        let want = vec![
            Frame { channel: 0, payload: b"{}".to_vec() },
            Frame { channel: 7, payload: vec![] },
            Frame { channel: u32::MAX, payload: vec![9; 300] },
        ];
        let mut bytes = Vec::new();
        want.iter().for_each(|f| f.encode(&mut bytes));
        for piece in [1, 2, 7, 8, 9, 64, bytes.len()] {
            assert_eq!(frames(&bytes, piece).unwrap(), want, "in pieces of {piece}");
        }
    }

    #[test]
    fn a_four_gigabyte_length_is_refused_at_its_head() {
        let err = frames(&[0xff, 0xff, 0xff, 0xff, 0, 0, 0, 0], 8).unwrap_err();
        assert!(err.0.contains("4294967295"), "{err}");
    }

    #[test]
    fn a_truncated_frame_is_no_frame() {
        let mut bytes = Vec::new();
        encode(3, b"hello", &mut bytes);
        assert_eq!(frames(&bytes[..bytes.len() - 1], 4).unwrap(), []);
    }
}
