//! The header in front of every frame: what the guest says is left to do for it -> what the host's kernel may
//! be told. Touches no tap.

/// `struct virtio_net_hdr_v1`, virtio 1.2 section 5.1.6: also what a tap puts in front of its frames.
pub(crate) const HEAD_SIZE: usize = 12;

/// Feature bits, section 5.1.3; the last is of virtio 1.3.
pub(super) const F_CSUM: u64 = 1 << 0;
pub(super) const F_HOST_TSO4: u64 = 1 << 11;
pub(super) const F_HOST_TSO6: u64 = 1 << 12;
pub(super) const F_HOST_USO: u64 = 1 << 56;

const NEEDS_CSUM: u8 = 1;

/// Kinds of frames that are to be split.
const GSO_NONE: u8 = 0;
const GSO_TCPV4: u8 = 1;
const GSO_TCPV6: u8 = 4;
const GSO_UDP_L4: u8 = 5;

const ETHERNET_SIZE: u64 = 14;
const IPV4_SIZE: u64 = 20;
const IPV6_SIZE: u64 = 40;
/// Room for two VLAN tags, which an MTU does not count.
const TAGS_SIZE: u64 = 8;
/// Longest frame: 64 KiB of packet, its Ethernet header, a VLAN tag.
pub(super) const FRAME_MAX: u64 = (64 << 10) + ETHERNET_SIZE + 4;

/// Least data of a TCP segment: Linux' TCP_MIN_SND_MSS less 40 bytes of options. Below, a frame of 64 KiB would
/// have the host make tens of thousands (CVE-2019-11477).
const TCP_SEGMENT_MIN: u16 = 8;
/// Most pieces of a UDP frame: Linux' UDP_MAX_SEGMENTS.
const UDP_SEGMENTS_MAX: u64 = 128;

/// Checked, and nothing in it but what its flags ask for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Head {
    flags: u8,
    gso_type: u8,
    hdr_len: u16,
    gso_size: u16,
    csum_start: u16,
    csum_offset: u16,
}

/// Why a frame is not sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Lie {
    /// No whole Ethernet header, or longer than the MTU, or than any frame.
    Length,
    /// A checksum outside the frame, or one that was not negotiated.
    Checksum,
    /// Splitting that was not negotiated, is of no known kind, or contradicts the frame's length.
    Segments,
}

impl Head {
    /// Checks what the guest says of a frame of `len` bytes. Flags that only a device may set are ignored, as
    /// unknown ones are (section 5.1.6.2.2).
    pub(super) fn admit(
        bytes: [u8; HEAD_SIZE],
        len: u64,
        features: u64,
        mtu: Option<u16>,
    ) -> Result<Self, Lie> {
        let said = Self::decode(bytes);
        if !(ETHERNET_SIZE..=FRAME_MAX).contains(&len) {
            return Err(Lie::Length);
        }
        if said.flags & NEEDS_CSUM != 0 {
            let end = u64::from(said.csum_start) + u64::from(said.csum_offset) + 2;
            if features & F_CSUM == 0 || u64::from(said.csum_start) < ETHERNET_SIZE || len < end {
                return Err(Lie::Checksum);
            }
        }
        if said.gso_type == GSO_NONE {
            let longest = mtu.map_or(FRAME_MAX, |mtu| u64::from(mtu) + ETHERNET_SIZE + TAGS_SIZE);
            return if longest < len { Err(Lie::Length) } else { Ok(said.without_segments()) };
        }
        said.check_segments(len, features)?;
        Ok(Self { flags: NEEDS_CSUM, ..said })
    }

    fn check_segments(&self, len: u64, features: u64) -> Result<(), Lie> {
        // The feature, the shortest headers below, the header itself, the place of its checksum.
        let (feature, below, size, checksum_at) = match self.gso_type {
            GSO_TCPV4 => (F_HOST_TSO4, IPV4_SIZE, 20, 16),
            GSO_TCPV6 => (F_HOST_TSO6, IPV6_SIZE, 20, 16),
            GSO_UDP_L4 => (F_HOST_USO, IPV4_SIZE, 8, 6),
            _ => return Err(Lie::Segments),
        };
        let headers = u64::from(self.csum_start) + size;
        let data = len.checked_sub(headers).ok_or(Lie::Segments)?;
        let splittable = match self.gso_type {
            GSO_UDP_L4 => 0 < self.gso_size && data.div_ceil(self.gso_size.into()) <= UDP_SEGMENTS_MAX,
            _ => TCP_SEGMENT_MIN <= self.gso_size,
        };
        let good = features & feature != 0
            && self.flags & NEEDS_CSUM != 0
            && ETHERNET_SIZE + below <= u64::from(self.csum_start)
            && self.csum_offset == checksum_at
            && u64::from(self.hdr_len) <= len
            && splittable;
        if good { Ok(()) } else { Err(Lie::Segments) }
    }

    fn without_segments(self) -> Self {
        if self.flags & NEEDS_CSUM == 0 {
            return Self::default();
        }
        Self { flags: NEEDS_CSUM, gso_type: GSO_NONE, hdr_len: 0, gso_size: 0, ..self }
    }

    fn decode(bytes: [u8; HEAD_SIZE]) -> Self {
        let [flags, gso_type, words @ ..] = bytes;
        let word = |index: usize| u16::from_le_bytes([words[index * 2], words[index * 2 + 1]]);
        Self {
            flags,
            gso_type,
            hdr_len: word(0),
            gso_size: word(1),
            csum_start: word(2),
            csum_offset: word(3),
        }
    }

    pub(super) fn encode(self) -> [u8; HEAD_SIZE] {
        let mut bytes = [0; HEAD_SIZE];
        bytes[0] = self.flags;
        bytes[1] = self.gso_type;
        let words = [self.hdr_len, self.gso_size, self.csum_start, self.csum_offset];
        for (to, word) in bytes[2..].chunks_exact_mut(2).zip(words) {
            to.copy_from_slice(&word.to_le_bytes());
        }
        bytes
    }
}
