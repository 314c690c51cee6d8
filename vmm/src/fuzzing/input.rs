//! Bytes read as a sequence of choices; at their end everything is zero.

/// What is left of the input.
pub(super) struct Input<'a>(&'a [u8]);

impl<'a> Input<'a> {
    pub(super) fn new(bytes: &'a [u8]) -> Self {
        Self(bytes)
    }

    /// The next operation, while there is one.
    pub(super) fn next(&mut self) -> Option<u8> {
        let (first, rest) = self.0.split_first()?;
        self.0 = rest;
        Some(*first)
    }

    fn array<const N: usize>(&mut self) -> [u8; N] {
        std::array::from_fn(|_| self.next().unwrap_or(0))
    }

    pub(super) fn byte(&mut self) -> u8 {
        self.next().unwrap_or(0)
    }

    pub(super) fn flag(&mut self) -> bool {
        self.byte() & 1 == 1
    }

    pub(super) fn u16(&mut self) -> u16 {
        u16::from_le_bytes(self.array())
    }

    pub(super) fn u32(&mut self) -> u32 {
        u32::from_le_bytes(self.array())
    }

    pub(super) fn u64(&mut self) -> u64 {
        u64::from_le_bytes(self.array())
    }

    /// At most as many bytes as are asked for.
    pub(super) fn bytes(&mut self, len: usize) -> &'a [u8] {
        let (taken, rest) = self.0.split_at(len.min(self.0.len()));
        self.0 = rest;
        taken
    }

    /// An address near what is interesting, or any: inside RAM, at its end, anywhere.
    pub(super) fn address(&mut self) -> u64 {
        match self.byte() % 4 {
            0 => super::RAM_SIZE - u64::from(self.byte()),
            1 => self.u64(),
            _ => u64::from(self.u16()),
        }
    }

    /// A length: mostly short, sometimes the limits.
    pub(super) fn len(&mut self) -> u32 {
        match self.byte() % 8 {
            0 => 0,
            1 => u32::MAX,
            2 => self.u32(),
            3 => u32::from(self.u16()),
            _ => u32::from(self.byte()) * 16,
        }
    }
}
